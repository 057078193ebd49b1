--!df flags=allow-undeclared-keys
-- priority/audit: find, and on request mend, what disagrees between a queue's keys
--
-- KEYS[1]   meta      hash    {queue}:meta      the queue's mark and counters
-- KEYS[2]   ready     zset    {queue}:ready     member -> score, the lowest leaves first
-- KEYS[3]   leases    zset    {queue}:leases    lease id -> ms at which it runs out
-- KEYS[4]   held      set     {queue}:held      members of all leases
-- KEYS[5]   delayed   zset    {queue}:delayed   member -> ms when it is due
-- KEYS[6]   dead      zset    {queue}:dead      member -> ms at which it was buried
-- KEYS[7]   again     hash    {queue}:again     member -> "score due min", "score due set" or "removed"
-- KEYS[8]   rows      hash    {queue}:rows      member -> score attempts reason
-- KEYS[9]   payloads  hash    {queue}:payloads  member -> bytes
-- KEYS[10]  guard     none    {queue}:guard     never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]   cursor    string                    keys:0, then the last reply's
-- ARGV[2]   limit     int     1..100            about how many keys or entries to look at in this call
-- ARGV[3]   repair    enum    report | repair
-- ARGV[4]   horizon   ints                      ms ahead that a time may lie, 0: any, a blank between them:
--             lease     0..99999999999          of a lease's deadline
--             delay     0..99999999999          of a member's due time
-- ARGV[5]   now       ms                        empty: the server's clock
-- COMPUTES  {queue}:lease:<id>, {queue}:wake
-- REPLY     [cursor, checked, [[kind, name, found, expected], ...]]  cursor: empty when done
--             twice: a member is in two of held, ready, delayed, dead; it stays in the first of these
--             row: the row of a delayed or dead member, or of one that is ready or leased, cannot be read
--             lease: a lease's list is in no index, it is due now; or an index names a list that is not there
--             held: a member is held and no lease names it: it is ready; or a lease names one that is not held;
--             looked at while at most 500 members are held, and named by at most 200 leases
--             stray: a row, a payload or a note of a member that is not there, or not leased
--             sequence: a place is greater than the last one given
--             far: a deadline or due time that no setting explains; it ends at the horizon
--             type: a key of this name holds another type; left as it is
--             unknown: a key that no queue has; left as it is
-- ERROR     BADARG                              an argument is out of range
-- ERROR     LAYOUT                              the queue's mark is not 2 fifo or 2 score
-- REPLAY    yes                                 what is mended is no longer found

local call = redis.call
local meta, ready, leases, held, delayed, dead, again, rows, payloads = unpack(KEYS)
local cursor, limit, repair, horizon, now = unpack(ARGV)
local phase, position = string.match(cursor or '', '^(%a+):(%d+)$')
local following = { -- leases come first: who is held decides where a member may be
  keys = 'leases:0', leases = 'held:0', held = 'ready:0', ready = 'delayed:0', delayed = 'dead:0', dead = 'again:0',
  again = 'rows:0', rows = 'payloads:0', payloads = '',
}
local lease_ahead, delay_ahead = string.match(horizon or '', '^(%d+) (%d+)$')
if #KEYS ~= 10 or #ARGV ~= 5 or not following[phase or ''] or #position > 18 or #limit > 3
  or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 100 or repair ~= 'report' and repair ~= 'repair'
  or not lease_ahead or #lease_ahead > 11 or #delay_ahead > 11 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': audit takes 10 keys, keys:0 or the last cursor, 1..100, report or repair, "lease delay", ms since 1970 or nothing')
end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue, findings = string.sub(meta, 1, -5), {}
local types = {
  meta = 'hash', ready = 'zset', leases = 'zset', held = 'set', delayed = 'zset', dead = 'zset', again = 'hash',
  rows = 'hash', payloads = 'hash',
}
local function found(kind, name, is, expected)
  findings[#findings + 1] = { kind, name, is, expected }
  return repair == 'repair'
end

-- A key of another type hides everything behind it: say so, and look no further.
for name, expected in pairs(types) do
  local is = call('TYPE', queue .. name).ok
  if is ~= expected and is ~= 'none' then
    found('type', name, is, expected)
  end
end
if #findings > 0 then
  return { '', #findings, findings }
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
end
-- end
types.lease, types.wake, types.grants = 'list', 'list', 'zset'
types.once, types.ended, types.paused = 'string', 'string', 'string'

local check = {}

function check.keys(key)
  local name = string.sub(key, 1, #queue) == queue and string.sub(key, #queue + 1)
  local noun, id = string.match(name or '', '^(%a+):?(.*)$')
  local is = name and call('TYPE', key).ok
  if name and not types[noun or ''] then
    found('unknown', name, is, 'none')
  elseif name and is ~= types[noun] and is ~= 'none' then
    found('type', name, is, types[noun])
  elseif noun == 'lease' and is == 'list' and not call('ZSCORE', leases, id)
    and found('lease', id, 'no deadline', 'one in leases') then
    call('ZADD', leases, now, id)
  end
end

local function check_time(index, name, time, ahead)
  local last = string.format('%d', now + ahead)
  if ahead ~= '0' and tonumber(time) > tonumber(last) and found('far', name, time, last) then
    call('ZADD', index, last, name)
  end
end

local function check_row(member)
  local row = call('HGET', rows, member)
  if not tonumber(string.match(row or '', '^(%S+) %d+ ')) and found('row', member, row or '', 'score attempts reason') then
    call('HSET', rows, member, '0 0 ')
  end
end

local function check_twice(member, index, others)
  for name, key in pairs(others) do
    local there = key == held and call('SISMEMBER', held, member) == 1 or key ~= held and call('ZSCORE', key, member)
    if there and found('twice', member, name, 'one state') then
      call('ZREM', index, member)
    end
  end
end

function check.ready(member, score)
  check_twice(member, ready, { held = held })
  local place, last = mark == '2 fifo' and score % 1000000000000 or 0, tonumber(call('HGET', meta, 'sequence')) or 0
  if place > last and found('sequence', 'meta', place, 'the last place') then
    call('HSET', meta, 'sequence', string.format('%d', place))
  end
end

function check.delayed(member, due)
  check_twice(member, delayed, { held = held, ready = ready })
  check_row(member)
  check_time(delayed, member, due, delay_ahead)
end

function check.dead(member)
  check_twice(member, dead, { held = held, ready = ready, delayed = delayed })
  check_row(member)
end

function check.leases(id, deadline)
  if call('EXISTS', queue .. 'lease:' .. id) == 0 and found('lease', id, 'none', 'a list') then
    call('ZREM', leases, id)
  end
  check_time(leases, id, deadline, lease_ahead)
end

-- All at once, because only all leases together say who is held.
function check.held()
  local ids, total, named, lists, lost, unheld = call('ZRANGE', leases, '0', '200'), call('SCARD', held), 0, {}, {}, {}
  for i, id in ipairs(ids) do
    local key = queue .. 'lease:' .. id
    lists[i] = call('TYPE', key).ok == 'list' and key
    named = named + (lists[i] and (call('LLEN', key) - 1) / 2 or 0)
  end
  if total > 500 or named > 500 or #ids > 200 then
    return total
  end
  local known = {}
  for i, id in ipairs(ids) do
    local list, members = lists[i] and call('LRANGE', lists[i], '1', '-1') or {}, {}
    for j = 1, #list, 2 do
      members[#members + 1], known[list[j]] = list[j], true
    end
    for j, is in ipairs(#members > 0 and call('SMISMEMBER', held, unpack(members)) or {}) do
      if is == 0 and found('held', members[j], 'not held', 'lease ' .. id) then
        unheld[#unheld + 1] = members[j]
      end
    end
  end
  for _, member in ipairs(total > 0 and call('SMEMBERS', held) or {}) do
    if not known[member] and found('held', member, 'held', 'a lease') then
      lost[#lost + 1] = member
    end
  end
  if #unheld > 0 then
    call('SADD', held, unpack(unheld))
  end
  if #lost > 0 then
    local notes, told, ripe = call('HMGET', again, unpack(lost)), call('HMGET', rows, unpack(lost)), {}
    for i, member in ipairs(lost) do
      if notes[i] ~= 'removed' then
        local score = string.match(notes[i] or '', '^(%S+) ') or string.match(told[i] or '', '^(%S+)') or '0'
        ripe[#ripe + 1], ripe[#ripe + 2] = score, member
      end
    end
    call('SREM', held, unpack(lost))
    call('HDEL', again, unpack(lost))
    if #ripe > 0 then
      call('ZADD', ready, unpack(ripe))
    end
  end
  return total
end

for name, key in pairs({ again = again, rows = rows, payloads = payloads }) do
  check[name] = function(member)
    local there = call('SISMEMBER', held, member) == 1
      or key ~= again and (call('ZSCORE', ready, member) or call('ZSCORE', delayed, member) or call('ZSCORE', dead, member))
    if not there and found('stray', member, name, 'none') then
      call('HDEL', key, member)
    elseif there and key == rows then
      check_row(member)
    end
  end
end

-- A list that no index names can be found only among the keys themselves.
local scans, step = { again = 'HSCAN', rows = 'HSCAN', payloads = 'HSCAN' }, phase == 'keys' and 1 or 2
local page = phase == 'held' and { '0', {} } or phase == 'keys' and call('SCAN', position, 'COUNT', limit)
  or call(scans[phase] or 'ZSCAN', queue .. phase, position, 'COUNT', limit)
for i = 1, #page[2], step do
  check[phase](page[2][i], page[2][i + 1])
end
local checked = phase == 'held' and check.held() or #page[2] / step
cursor = page[1] == '0' and following[phase] or phase .. ':' .. page[1]
if cursor == '' and repair == 'repair' then -- what was mended may have been all that there was
  -- idiom: priority drained
  if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
    call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  end
  -- end
end
return { cursor, checked, findings }
