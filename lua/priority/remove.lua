-- priority/remove: take members out, whatever their state
--
-- KEYS[1]   ready   zset    {queue}:ready      member -> score
-- KEYS[2]   later   zset    {queue}:later      member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows    hash    {queue}:rows       member -> score attempts asked asked_due owner
-- KEYS[4]   once    string  {queue}:once:<id>  the answer this removal gave
-- KEYS[5]   layout  string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   window  int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member  bytes   0..1000 of them
-- REPLY     count                              members that were there; who holds one has lost the lease on it
-- ERROR     BADARG                             an argument is out of range
-- ERROR     LAYOUT                             these keys are of another layout than this script
-- REPLAY    once                               the same id within the window: nothing more, the same answer

local ready, later, rows, once, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local window = ARGV[1]

if #KEYS ~= 5 or #ARGV < 1 or #ARGV > 1001 then
  return redis.error_reply('BADARG remove takes 5 keys, 1 argument and at most 1000 members')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end
if #ARGV == 1 then
  return 0
end

-- Sent again after a push of the same member, it must not remove what came since.
-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

redis.call('ZCARD', ready)
redis.call('ZCARD', later)
redis.call('HLEN', rows)
answer = redis.call('ZREM', ready, unpack(ARGV, 2)) + redis.call('ZREM', later, unpack(ARGV, 2))
redis.call('HDEL', rows, unpack(ARGV, 2))

-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
