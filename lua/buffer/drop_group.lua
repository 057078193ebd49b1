--!df flags=allow-undeclared-keys
-- buffer/drop_group: throw away what waits in a group and its delayed and dead batches, some batches a call
--
-- KEYS[1]  meta      hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]  items     list    {queue}:items:<group>  waiting items, oldest left
-- KEYS[3]  once      string  {queue}:once:<id>      the answer that this call gave
-- ARGV[1]  group     string  not empty
-- ARGV[2]  cursor    ints                           whole numbers, a blank between them:
--            state     0..1                         two zeros, then the last reply's cursor
--            start     0..999999999999999999
-- ARGV[3]  limit     int     1..250                 batches to look at, about so many
-- ARGV[4]  window    int     0..999999999           ms that the answer is remembered, 0: not at all
-- ARGV[5]  now       ms                             empty: the server's clock
-- COMPUTES {queue}:groups, {queue}:since, {queue}:leases, {queue}:delayed, {queue}:dead, {queue}:batch:<id>
-- COMPUTES {queue}:busy, {queue}:paused_groups, {queue}:wake
-- REPLY    [cursor, dropped]                        cursor: empty when done; dropped: how many items, in this call
-- ERROR    BADARG                                   an argument is out of range
-- ERROR    LAYOUT                                   the queue's mark is not 2 buffer
-- REPLAY   once                                     the same id within the window: nothing more, the same answer

local call = redis.call
local meta, items, once = unpack(KEYS)
local group, cursor, limit, window, now = unpack(ARGV)
local state, start = string.match(cursor or '', '^([01]) (%d+)$')
if #KEYS ~= 3 or #ARGV ~= 5 or group == '' or not state or #start > 18 or #limit > 3
  or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 250 or #window > 9 or not string.find(window, '^%d+$')
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': drop_group takes 3 keys, a group, "0 0" or the last cursor, 1..250, 0..999999999, ms since 1970 or nothing')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
local answer = call('GET', once)
if answer then
  return { string.match(answer, ' (.*)$'), tonumber(string.match(answer, '^%d+')) }
end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue = string.sub(meta, 1, -5)
-- idiom: types
-- A script is not rolled back: a key of another type must stop it here, before it has written anything.
for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead', 'paused_groups' }) do
  call('ZCARD', queue .. key)
end
call('HLEN', queue .. 'busy')
call('LLEN', queue .. 'items:' .. group)
-- end
local tokens, busy = call('LLEN', queue .. 'wake'), call('HGET', queue .. 'busy', group)
local places, doomed, dropped = { 'delayed', 'dead' }, {}, 0
-- ZSCAN meets all that is there from the first call to the last, whatever comes and goes meanwhile; ranks would shift.
for place = state + 1, 2 do
  local page, names, batches = call('ZSCAN', queue .. places[place], start, 'COUNT', limit), {}, {}
  for i = 1, #page[2], 2 do
    local batch = queue .. 'batch:' .. page[2][i]
    if call('LINDEX', batch, '0') == group then
      names[#names + 1], batches[#batches + 1] = page[2][i], batch
      dropped = dropped + math.max(0, call('LLEN', batch) - 4)
    end
  end
  doomed[#doomed + 1] = #names > 0 and { queue .. places[place], names, batches } or nil
  state, start = place - 1, page[1]
  if start ~= '0' then break end
end

if cursor == '0 0' then -- what is pushed between two calls stays
  dropped = dropped + call('LLEN', items)
  call('UNLINK', items)
  call('ZREM', queue .. 'groups', group)
  call('ZREM', queue .. 'since', group)
end
call('ZREM', queue .. 'dead', '') -- it frees nothing, but after a write that could a full server takes the next ones
for _, some in ipairs(doomed) do
  call('ZREM', some[1], unpack(some[2]))
  call('UNLINK', unpack(some[3]))
end
if busy and call('EXISTS', queue .. 'batch:' .. busy) == 0 then
  call('HDEL', queue .. 'busy', group)
end
-- idiom: offer
-- A group may be chosen while it has items and is neither busy nor paused.
local length = call('LLEN', queue .. 'items:' .. group)
if length > 0 and call('HEXISTS', queue .. 'busy', group) == 0
  and not call('ZSCORE', queue .. 'paused_groups', group) then
  call('ZADD', queue .. 'groups', string.format('%d', length), group)
  call('ZADD', queue .. 'since', 'NX', now, group)
  if tokens == 0 then
    tokens = call('LPUSH', queue .. 'wake', '1')
  end
end
-- end
-- idiom: buffer drained
local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
if call('EXISTS', unpack(kept)) == 0 then
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
end
-- end
local following = start == '0' and '' or state .. ' ' .. start
answer = dropped .. ' ' .. following
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return { following, dropped }
