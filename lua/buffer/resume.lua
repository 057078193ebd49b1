--!df flags=allow-undeclared-keys
-- buffer/resume: end the pause of a queue, and wake a blocked client
--
-- KEYS[1]  meta    hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]  paused  string  {queue}:paused     <until or 0> <reason>
-- KEYS[3]  once    string  {queue}:once:<id>  the answer that this call gave
-- KEYS[4]  wake    list    {queue}:wake       a wake-up for blocked clients
-- ARGV[1]  window  int     0..999999999       ms that the answer is remembered, 0: not at all
-- COMPUTES {queue}:groups, {queue}:leases, {queue}:delayed, {queue}:dead, {queue}:paused_groups
-- REPLY    resumed                            1: it was paused, 0: it was not
-- ERROR    BADARG                             an argument is out of range
-- ERROR    LAYOUT                             the queue's mark is not 2 buffer
-- REPLAY   once                               the same id within the window: nothing more, the same answer

local call = redis.call
-- idiom: resume
local meta, paused, once, wake = unpack(KEYS)
local window = ARGV[1]
if #KEYS ~= 4 or #ARGV ~= 1 or #window > 9 or not string.find(window, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80) .. ': resume takes 4 keys and a window')
end
-- end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
-- idiom: once
local answer = call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end
local queue = string.sub(meta, 1, -5)
local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
-- idiom: end pause
call('GET', paused) -- a key of another type is left alone
local wakes = call('LLEN', wake) == 0 and call('EXISTS', unpack(kept)) > 0
answer = call('DEL', paused) -- it frees, or could, so a full server takes the rest
if answer == 1 and wakes then -- a client that waits was told another time
  call('LPUSH', wake, '1')
end
-- end
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
