-- priority/audit: find, and on request mend, what disagrees between a queue's keys
--
-- KEYS[1]  ready   zset    {queue}:ready     member -> score
-- KEYS[2]  later   zset    {queue}:later     member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows    hash    {queue}:rows      member -> score attempts asked asked_due owner
-- KEYS[4]  meta    hash    {queue}:meta      order, sequence
-- ARGV[1]  cursor  string                    start with ready:0, then the last reply's cursor
-- ARGV[2]  limit   int     1..1000           about how many entries to look at in this call
-- ARGV[3]  repair  enum    report | repair
-- REPLY    [cursor, checked, [[kind, name, found, expected], ...]]  cursor: empty when done
--                                            type: a key of this name holds another type; left as it is
--                                            order: the stored order is neither fifo nor score; left as it is
--                                            sequence: a member has a place that the sequence has yet to reach
--                                            twice: a member is both ready and parked; it keeps the lease, else is ready
--                                            row: a parked member has no row that can be read, or a ready one has a lease's
--                                            stranded: a row whose member is nowhere; it is ready again
-- ERROR    BADARG                            an argument is out of range
-- REPLAY   yes                               what is mended is no longer found

local ready, later, rows, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local cursor, limit, repair = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 4 or #ARGV ~= 3 then
  return redis.error_reply('BADARG audit takes 4 keys and 3 arguments')
end
local phase, position = string.match(cursor, '^(%a+):(%d+)$')
if phase ~= 'ready' and phase ~= 'later' and phase ~= 'rows' then
  return redis.error_reply('BADARG cursor is ' .. string.sub(cursor, 1, 32) .. ', give ready:0 or the last reply\'s')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 1000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 1000')
end
if repair ~= 'report' and repair ~= 'repair' then
  return redis.error_reply('BADARG repair is ' .. string.sub(repair, 1, 32) .. ', give report or repair')
end

-- A key of another type hides everything behind it: say so, and look no further.
local findings = {}
for i, expected in ipairs({ 'zset', 'zset', 'hash', 'hash' }) do
  local held = redis.call('TYPE', KEYS[i]).ok
  if held ~= expected and held ~= 'none' then
    findings[#findings + 1] = { 'type', ({ 'ready', 'later', 'rows', 'meta' })[i], held, expected }
  end
end
if #findings > 0 then
  return { '', #findings, findings }
end

local function found(kind, name, is, expected)
  findings[#findings + 1] = { kind, name, is, expected }
  return repair == 'repair'
end

local function read(member)
  local row = redis.call('HGET', rows, member)
  local score, attempts, asked, asked_due, owner = string.match(row or '', '^(%S+) (%d+) (%S+) (%S+) (.*)$')
  local sound = tonumber(score) and (asked == '-' or tonumber(asked) and tonumber(asked_due))
  return row or '', sound and { score, attempts, asked, asked_due, owner }
end

local order = redis.call('HGET', meta, 'order')
local sequence = tonumber(redis.call('HGET', meta, 'sequence') or 0) or 0
if order and order ~= 'fifo' and order ~= 'score' then
  found('order', 'meta', order, 'fifo or score')
end

local check = {}

function check.ready(member, score)
  local place = score % 4398046511104
  if order == 'fifo' and place > sequence and found('sequence', member, sequence, string.format('%.0f', place)) then
    redis.call('HSET', meta, 'sequence', place)
    sequence = place
  end
  local row, fields = read(member)
  local due = redis.call('ZSCORE', later, member)
  if due and found('twice', member, 'ready and parked', 'one of them') then
    if fields and fields[5] ~= '' then
      fields[3] = string.format('%.17g', math.min(tonumber(fields[3]) or score, score))
      fields[4] = tonumber(fields[4]) and fields[4] or '0'
      redis.call('HSET', rows, member, table.concat(fields, ' '))
      redis.call('ZREM', ready, member)
    else
      redis.call('ZREM', later, member)
    end
  elseif not due and row ~= '' and (not fields or fields[5] ~= '') and found('row', member, row, 'no owner') then
    redis.call('HSET', rows, member, string.format('%.17g %d - - ', score, fields and fields[2] or 0))
  end
end

function check.later(member)
  local row, fields = read(member)
  if not fields and found('row', member, row, 'score attempts asked asked_due owner') then
    redis.call('HSET', rows, member, '0 0 - - ')
  end
end

function check.rows(member, row)
  if not redis.call('ZSCORE', ready, member) and not redis.call('ZSCORE', later, member) then
    local score = string.match(row, '^(%S+) %d+ %S+ %S+ ')
    if found('stranded', member, row, 'ready') then
      redis.call('ZADD', ready, tonumber(score) or 0, member)
      redis.call('HSET', rows, member, string.format('%.17g 0 - - ', tonumber(score) or 0))
    end
  end
end

local page
if phase == 'rows' then
  page = redis.call('HSCAN', rows, position, 'COUNT', limit)
else
  page = redis.call('ZSCAN', phase == 'ready' and ready or later, position, 'COUNT', limit)
end
for i = 1, #page[2], 2 do
  check[phase](page[2][i], phase == 'ready' and tonumber(page[2][i + 1]) or page[2][i + 1])
end

local following = ({ ready = 'later:0', later = 'rows:0', rows = '' })[phase]
if page[1] ~= '0' then
  following = phase .. ':' .. page[1]
end
return { following, #page[2] / 2, findings }
