--!df flags=allow-undeclared-keys
-- priority/state: say where one member is
--
-- KEYS[1]  meta    hash   {queue}:meta   the queue's mark and counters
-- KEYS[2]  ready   zset   {queue}:ready  member -> score, the lowest leaves first
-- KEYS[3]  guard   none   {queue}:guard  never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  member  bytes
-- COMPUTES {queue}:held, {queue}:delayed, {queue}:dead, {queue}:again
-- REPLY    state                         absent | ready | delayed | leased | dead, as the last call left it
-- ERROR    BADARG                        an argument is out of range
-- ERROR    LAYOUT                        the queue's mark is not 2 fifo or 2 score
-- REPLAY   yes                           it only reads

local call = redis.call
local meta, ready = unpack(KEYS)
local member = ARGV[1]
if #KEYS ~= 3 or #ARGV ~= 1 then
  return redis.error_reply('BADARG state takes 3 keys and a member')
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
end
-- end
local queue = string.sub(meta, 1, -5)
if call('ZSCORE', ready, member) then
  return 'ready'
elseif call('SISMEMBER', queue .. 'held', member) == 1 then
  return call('HGET', queue .. 'again', member) == 'removed' and 'absent' or 'leased'
elseif call('ZSCORE', queue .. 'delayed', member) then
  return 'delayed'
end
return call('ZSCORE', queue .. 'dead', member) and 'dead' or 'absent'
