--!df flags=allow-undeclared-keys
-- priority/discard: throw dead members away
--
-- KEYS[1]   meta    hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]   dead    zset    {queue}:dead       member -> ms at which it was buried
-- KEYS[3]   once    string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]   window  int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member  bytes   0..1000            so many of them; those that are not dead are passed over
-- COMPUTES  {queue}:ready, {queue}:leases, {queue}:delayed, {queue}:rows, {queue}:payloads, {queue}:wake
-- REPLY     discarded                          how many were dead
-- ERROR     BADARG                             an argument is out of range
-- ERROR     LAYOUT                             the queue's mark is not 2 fifo or 2 score
-- REPLAY    once                               the same id within the window: nothing more, the same answer

local call = redis.call
local meta, dead, once = unpack(KEYS)
local window = ARGV[1]
if #KEYS ~= 3 or #ARGV < 1 or #ARGV > 1001
  or #window > 9 or not string.find(window, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 1)), 1, 80)
    .. ': discard takes 3 keys, a window of 0..999999999 ms, at most 1000 members')
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
local queue, members = string.sub(meta, 1, -5), {}
for i, time in ipairs(call('ZMSCORE', dead, unpack(ARGV, 2))) do
  members[#members + 1] = time and ARGV[i + 1] or nil
end
call('HLEN', queue .. 'rows')
call('HLEN', queue .. 'payloads')
call('HDEL', meta, '') -- it frees nothing, but after a write that could a full server takes the next ones
answer = #members > 0 and call('ZREM', dead, unpack(members)) or 0 -- one that is given twice is counted once
if #members > 0 then
  call('HDEL', queue .. 'rows', unpack(members))
  call('HDEL', queue .. 'payloads', unpack(members))
  -- idiom: priority drained
  if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
    call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  end
  -- end
end
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
