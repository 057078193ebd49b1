--!df flags=allow-undeclared-keys
-- priority/pause: hand nothing out, for a time or until the queue is resumed; what is pushed and settled is taken
--
-- KEYS[1]  meta      hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]  paused    string  {queue}:paused     <until or 0> <reason>
-- KEYS[3]  once      string  {queue}:once:<id>  the answer that this call gave
-- KEYS[4]  wake      list    {queue}:wake       a wake-up for blocked clients
-- ARGV[1]  duration  int     0..99999999999     ms, 0: until it is resumed
-- ARGV[2]  reason    string                     why; its first 1000 bytes are kept
-- ARGV[3]  window    int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[4]  now       ms                         empty: the server's clock
-- COMPUTES {queue}:ready, {queue}:leases, {queue}:delayed, {queue}:dead
-- REPLY    1                                    whatever pause there was before
-- ERROR    BADARG                               an argument is out of range
-- ERROR    LAYOUT                               the queue's mark is not 2 fifo or 2 score
-- REPLAY   once                                 the same id within the window: the same answer, and the pause as it is

local call = redis.call
local meta, paused, once, wake = unpack(KEYS)
local duration, reason, window, now = unpack(ARGV)
-- idiom: pause
if #KEYS ~= 4 or #ARGV ~= 4 or #duration > 11 or not string.find(duration, '^%d+$') or #window > 9
  or not string.find(window, '^%d+$') or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': pause takes 4 keys, 0..99999999999 ms, a text, a window of 0..999999999 ms, ms since 1970 or nothing')
end
-- end
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
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue = string.sub(meta, 1, -5)
local kept = { queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead' }
-- idiom: end pause
call('GET', paused) -- a key of another type is left alone
local wakes = call('LLEN', wake) == 0 and call('EXISTS', unpack(kept)) > 0
answer = call('DEL', paused) -- it frees, or could, so a full server takes the rest
if answer == 1 and wakes then -- a client that waits was told another time
  call('LPUSH', wake, '1')
end
-- end
-- idiom: set pause
-- The value says when it ends; the TTL is for who never looks again.
local ends, ttl = string.format('%d ', now + duration), { 'PX', duration }
if tonumber(duration) == 0 then
  ends, ttl = '0 ', {}
end
call('SET', paused, ends .. string.sub(reason, 1, 1000), unpack(ttl))
answer = 1
-- end
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
