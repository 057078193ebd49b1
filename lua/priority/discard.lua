-- priority/discard: throw dead members away
--
-- KEYS[1]   later   zset    {queue}:later      member -> ms when it is ready again, +inf when dead
-- KEYS[2]   rows    hash    {queue}:rows       member -> score attempts asked asked_due owner
-- KEYS[3]   once    string  {queue}:once:<id>  the answer that this call gave
-- KEYS[4]   layout  string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   window  int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member  bytes   0..1000 of them
-- REPLY     count  how many were dead; others are passed over
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- REPLAY    once  the same id within the window: nothing more, the same answer

local later, rows, once, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local window = ARGV[1]

if #KEYS ~= 4 or #ARGV < 1 or #ARGV > 1001 then
  return redis.error_reply('BADARG discard takes 4 keys, 1 argument and at most 1000 members')
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

-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

redis.call('HLEN', rows)
local members = {}
for i, due in ipairs(#ARGV > 1 and redis.call('ZMSCORE', later, unpack(ARGV, 2)) or {}) do
  if tonumber(due or 0) == math.huge then
    members[#members + 1] = ARGV[i + 1]
  end
end
-- A write that frees, though there is nothing to free: after it a full server lets the answer be remembered.
redis.call('DEL', once)
answer = 0
if #members > 0 then
  answer = redis.call('ZREM', later, unpack(members)) -- one that was given twice is counted once
  redis.call('HDEL', rows, unpack(members))
end
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
