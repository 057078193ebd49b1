-- buffer/longest: name the longest groups
--
-- KEYS[1]  groups  zset  {queue}:groups  group -> waiting length
-- KEYS[2]  layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- ARGV[1]  count   int   1..5000
-- REPLY    [group, length, ...]          longest first; equal lengths: the greater name first
-- ERROR    BADARG                        an argument is out of range
-- ERROR    LAYOUT                        these keys are of another layout than this script
-- REPLAY   yes                           it only reads

local groups, layout = KEYS[1], KEYS[2]
local count = ARGV[1]

if #KEYS ~= 2 or #ARGV ~= 1 then
  return redis.error_reply('BADARG longest takes 2 keys and 1 argument')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(count, '^%d+$') or tonumber(count) < 1 or tonumber(count) > 5000 then
  return redis.error_reply('BADARG count is ' .. string.sub(count, 1, 32) .. ', give a whole number from 1 to 5000')
end

local longest = redis.call('ZREVRANGE', groups, 0, count - 1, 'WITHSCORES')
for i = 2, #longest, 2 do
  longest[i] = tonumber(longest[i])
end
return longest
