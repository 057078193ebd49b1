-- priority/redrive: dead members are ready again, with no attempts
--
-- KEYS[1]   meta    hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]   ready   zset    {queue}:ready      member -> score, the lowest leaves first
-- KEYS[3]   dead    zset    {queue}:dead       member -> ms at which it was buried
-- KEYS[4]   rows    hash    {queue}:rows       member -> score attempts reason
-- KEYS[5]   once    string  {queue}:once:<id>  the answer that this call gave
-- KEYS[6]   wake    list    {queue}:wake       a wake-up for blocked clients
-- ARGV[1]   window  int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member  bytes   0..1000            so many of them; those that are not dead are passed over
-- REPLY     redriven                           how many were dead
-- ERROR     BADARG                             an argument is out of range
-- ERROR     LAYOUT                             the queue's mark is not 2 fifo or 2 score
-- REPLAY    once                               the same id within the window: nothing more, the same answer

local call = redis.call
local meta, ready, dead, rows, once, wake = unpack(KEYS)
local window = ARGV[1]
if #KEYS ~= 6 or #ARGV < 1 or #ARGV > 1001
  or #window > 9 or not string.find(window, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 1)), 1, 80)
    .. ': redrive takes 6 keys, a window of 0..999999999 ms, at most 1000 members')
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
end
-- end
-- idiom: once
local answer = call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end
if #ARGV == 1 then
  return 0
end
call('ZCARD', ready)
local tokens, members, ripe, seen = call('LLEN', wake), {}, {}, {}
local known = call('HMGET', rows, unpack(ARGV, 2))
for i, time in ipairs(call('ZMSCORE', dead, unpack(ARGV, 2))) do
  local member = ARGV[i + 1]
  if time and not seen[member] then
    members[#members + 1], seen[member] = member, true
    ripe[#ripe + 1], ripe[#ripe + 2] = string.match(known[i] or '0', '^%S+'), member
  end
end
call('HDEL', meta, '') -- it frees nothing, but after a write that could a full server takes the next ones
if #members > 0 then
  call('ZREM', dead, unpack(members))
  call('HDEL', rows, unpack(members))
  call('ZADD', ready, unpack(ripe))
  if tokens == 0 then
    call('LPUSH', wake, '1')
  end
end
answer = #members
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
