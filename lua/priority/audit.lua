--!df flags=allow-undeclared-keys
-- priority/audit: find, and on request mend, what disagrees between a queue's keys
--
-- KEYS[1]  ready   zset    {queue}:ready     member -> score
-- KEYS[2]  later   zset    {queue}:later     member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows    hash    {queue}:rows      member -> score attempts asked asked_due owner
-- KEYS[4]  meta    hash    {queue}:meta      order, sequence
-- KEYS[5]  guard   none    {queue}:guard     never exists: while a cluster moves the slot the server says TRYAGAIN
-- KEYS[6]  layout  string  {queue}:layout    the layout of these keys: 1, or absent
-- ARGV[1]  cursor  string                    start with keys:0, then the last reply's cursor
-- ARGV[2]  limit   int     1..200            about how many entries to look at in this call
-- ARGV[3]  repair  enum    report | repair
-- COMPUTES  {queue}:<key>
-- REPLY    [cursor, checked, [[kind, name, found, expected], ...]]  cursor: empty when done
--                                            type: a key of this name holds another type; left as it is
--                                            unknown: a key that no queue has; left as it is
--                                            order: the stored order is neither fifo nor score; left as it is
--                                            sequence: a member has a place that the sequence has yet to reach
--                                            twice: a member is both ready and parked; it keeps the lease, else is ready
--                                            row: a parked member has no row that can be read, or a ready one has a lease's
--                                            stranded: a row whose member is nowhere; it is ready again
-- ERROR    BADARG                            an argument is out of range
-- ERROR    LAYOUT                            these keys are of another layout than this script
-- REPLAY   yes                               what is mended is no longer found

local ready, later, rows, meta, guard, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local cursor, limit, repair = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 6 or #ARGV ~= 3 then
  return redis.error_reply('BADARG audit takes 6 keys and 3 arguments')
end
local phase, position = string.match(cursor, '^(%a+):(%d+)$')
if phase ~= 'keys' and phase ~= 'ready' and phase ~= 'later' and phase ~= 'rows' then
  return redis.error_reply('BADARG cursor is ' .. string.sub(cursor, 1, 32) .. ', give keys:0 or the last reply\'s')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 200 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 200')
end
if repair ~= 'report' and repair ~= 'repair' then
  return redis.error_reply('BADARG repair is ' .. string.sub(repair, 1, 32) .. ', give report or repair')
end

local queue = string.sub(guard, 1, -6)
local types = { ready = 'zset', later = 'zset', rows = 'hash', meta = 'hash', layout = 'string' }
local findings = {}
local function found(kind, name, is, expected)
  findings[#findings + 1] = { kind, name, is, expected }
  return repair == 'repair'
end

-- A key of another type hides everything behind it: say so, and look no further.
for name, expected in pairs(types) do
  local held = redis.call('TYPE', queue .. name).ok
  if held ~= expected and held ~= 'none' then
    found('type', name, held, expected)
  end
end
if #findings > 0 then
  return { '', #findings, findings }
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end

local function finite(number)
  return tonumber(number) and tonumber(number) - tonumber(number) == 0
end

-- A row as it is, and its fields if it can be read.
local function read(member)
  local row = redis.call('HGET', rows, member)
  local score, attempts, asked, asked_due, owner = string.match(row or '', '^(%S+) (%d+) (%S+) (%S+) (.*)$')
  local sound = finite(score) and (asked == '-' or finite(asked) and finite(asked_due))
  return row, sound and { score, attempts, asked, asked_due, owner }
end

local order = redis.call('HGET', meta, 'order')
local sequence = tonumber(redis.call('HGET', meta, 'sequence') or 0) or 0
if order and order ~= 'fifo' and order ~= 'score' then
  found('order', 'meta', order, 'fifo or score')
end

local function check_place(score)
  local place = score % 4398046511104
  if order == 'fifo' and place > sequence and found('sequence', 'meta', sequence, 'the last place') then
    redis.call('HSET', meta, 'sequence', place)
    sequence = place
  end
end

local check = {}

function check.ready(member, score)
  score = tonumber(score)
  check_place(score)
  local row, fields = read(member)
  local parked = redis.call('ZSCORE', later, member)
  local leased = parked and fields and fields[5] ~= ''
  if parked and found('twice', member, 'ready and parked', 'one of them') then
    redis.call('ZREM', leased and ready or later, member)
  end
  if leased and repair == 'repair' then -- what made it ready is noted, as a push would have been
    fields[3] = string.format('%.17g', math.min(tonumber(fields[3]) or score, score))
    fields[4] = tonumber(fields[4]) and fields[4] or '0'
    redis.call('HSET', rows, member, table.concat(fields, ' '))
  elseif not leased and row and not (fields and fields[5] == '') and found('row', member, row, 'no owner') then
    redis.call('HSET', rows, member, string.format('%.17g %d - - ', score, fields and fields[2] or 0))
  end
end

function check.later(member)
  local row, fields = read(member)
  if fields then
    check_place(tonumber(fields[1]))
  elseif found('row', member, row or '', 'score attempts asked asked_due owner') then
    redis.call('HSET', rows, member, '0 0 - - ')
  end
end

function check.rows(member, row)
  if redis.call('ZSCORE', ready, member) or redis.call('ZSCORE', later, member) then
    return
  end
  local score = string.match(row, '^(%S+) %d+ %S+ %S+ ')
  if found('stranded', member, row, 'ready') then
    score = finite(score) and tonumber(score) or 0
    redis.call('ZADD', ready, score, member)
    redis.call('HSET', rows, member, string.format('%.17g 0 - - ', score))
  end
end

function check.keys(key)
  if string.sub(key, 1, #queue) ~= queue then
    return
  end
  local name = string.sub(key, #queue + 1)
  local held = redis.call('TYPE', key).ok
  local noun = string.match(name, '^(%a+):?')
  local expected = types[noun or ''] or ({ grants = 'zset', wake = 'list', lease = 'list', once = 'string' })[noun or '']
  if not expected then
    found('unknown', name, held, 'none')
  elseif held ~= expected and held ~= 'none' then
    found('type', name, held, expected)
  end
end

local page, step
if phase == 'keys' then
  page, step = redis.call('SCAN', position, 'COUNT', limit), 1
elseif phase == 'rows' then
  page, step = redis.call('HSCAN', rows, position, 'COUNT', limit), 2
else
  page, step = redis.call('ZSCAN', phase == 'ready' and ready or later, position, 'COUNT', limit), 2
end
for i = 1, #page[2], step do
  check[phase](page[2][i], page[2][i + 1])
end

local following = ({ keys = 'ready:0', ready = 'later:0', later = 'rows:0', rows = '' })[phase]
if page[1] ~= '0' then
  following = phase .. ':' .. page[1]
end
return { following, #page[2] / step, findings }
