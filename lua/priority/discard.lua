-- priority/discard: throw dead members away
--
-- KEYS[1]   later   zset    {queue}:later      member -> ms when it is ready again, +inf when dead
-- KEYS[2]   rows    hash    {queue}:rows       member -> score attempts asked asked_due owner
-- KEYS[3]   once    string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]   window  int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member  bytes   0..1000 of them
-- REPLY     count  how many were dead; others are passed over
-- ERROR     BADARG  an argument is out of range
-- REPLAY    once  the same id within the window: nothing more, the same answer

local later, rows, once = KEYS[1], KEYS[2], KEYS[3]
local window = ARGV[1]

if #KEYS ~= 3 or #ARGV < 1 or #ARGV > 1001 then
  return redis.error_reply('BADARG discard takes 3 keys, 1 argument and at most 1000 members')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end

-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

redis.call('HLEN', rows)
-- A write that frees, though there is nothing to free: after it a full server lets the answer be remembered.
redis.call('DEL', once)
answer = 0
for i = 2, #ARGV do
  if tonumber(redis.call('ZSCORE', later, ARGV[i]) or 0) == math.huge then
    redis.call('ZREM', later, ARGV[i])
    redis.call('HDEL', rows, ARGV[i])
    answer = answer + 1
  end
end
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
