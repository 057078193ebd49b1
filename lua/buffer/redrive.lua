--!df flags=allow-undeclared-keys
-- buffer/redrive: dead letters wait again, as items at the front of their group
--
-- KEYS[1]   meta    hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]   dead    zset    {queue}:dead       batch id -> ms at which it was buried
-- KEYS[3]   once    string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]   window  int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[2]   now     ms                         empty: the server's clock
-- ARGV[3+]  id      string  0..100             dead batches, the one to be taken first first; others are passed over
-- COMPUTES  {queue}:groups, {queue}:since, {queue}:items:<group>, {queue}:leases, {queue}:delayed, {queue}:batch:<id>
-- COMPUTES  {queue}:busy, {queue}:paused_groups, {queue}:wake
-- REPLY     [redriven, left]                   batches; the first left ids are to be given again: it goes from the last
--                                              to the first, and stops before it has moved more than 3400 items
-- ERROR     BADARG                             an argument is out of range
-- ERROR     LAYOUT                             the queue's mark is not 2 buffer
-- REPLAY    once                               the same id within the window: nothing more, the same answer

local call = redis.call
local meta, dead, once = unpack(KEYS)
local window, now = unpack(ARGV, 1, 2)
if #KEYS ~= 3 or #ARGV < 2 or #ARGV > 102
  or #window > 9 or not string.find(window, '^%d+$') or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 2)), 1, 80)
    .. ': redrive takes 3 keys, 0..999999999, ms since 1970 or nothing, at most 100 ids')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
local answer = call('GET', once)
if answer then
  local redriven, left = string.match(answer, '^(%d+) (%d+)$')
  return { tonumber(redriven), tonumber(left) }
end
if #ARGV == 2 then
  return { 0, 0 }
end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue, group, found, seen, size, left = string.sub(meta, 1, -5), '', {}, {}, 0, #ARGV - 2
-- idiom: types
-- A script is not rolled back: a key of another type must stop it here, before it has written anything.
for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead', 'paused_groups' }) do
  call('ZCARD', queue .. key)
end
call('HLEN', queue .. 'busy')
call('LLEN', queue .. 'items:' .. group)
-- end
while left > 0 do
  local id = ARGV[left + 2]
  local batch = queue .. 'batch:' .. id
  local count = not seen[id] and call('ZSCORE', dead, id) and call('LLEN', batch) - 4 or 0
  if size > 0 and size + count > 3400 then
    break
  elseif count > 0 then
    seen[id], size = true, size + count
    local one = { id = id, batch = batch, group = call('LINDEX', batch, '0') }
    call('LLEN', queue .. 'items:' .. one.group)
    found[#found + 1] = one
  end
  left = left - 1
end

local tokens = call('LLEN', queue .. 'wake')
call('ZREM', dead, '') -- it frees nothing, but after a write that could a full server takes the next ones
for _, one in ipairs(found) do
  local back, first = call('LRANGE', one.batch, '4', '-1'), 1
  group = one.group
  call('ZREM', dead, one.id)
  call('UNLINK', one.batch)
  -- idiom: put back
  -- In pieces from the last item on, so that the first one is the next to be taken.
  for i = #back, first, -1000 do
    local piece = {}
    for j = i, math.max(first, i - 999), -1 do
      piece[i - j + 1] = back[j]
    end
    call('LPUSH', queue .. 'items:' .. group, unpack(piece))
  end
  -- end
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
end
answer = #found .. ' ' .. left
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return { #found, left }
