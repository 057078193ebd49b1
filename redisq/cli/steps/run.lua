-- A step of an import that another script, `inner`, can do.
--
-- KEYS   the import's progress: how many lines have been restored; then those of inner
-- ARGV   the progress that this step begins at, and the one it leads to; then those of inner
-- Reply  the progress; nothing has been done if it was another one

local progress, from, to = KEYS[1], ARGV[1], ARGV[2]
local at = redis.call('GET', progress)
if at ~= from then
  return at
end
local keys, arguments = {}, {}
for i = 2, #KEYS do
  keys[i - 1] = KEYS[i]
end
for i = 3, #ARGV do
  arguments[i - 2] = ARGV[i]
end
local answer = inner(keys, arguments)
if type(answer) == 'table' and answer.err then
  return answer
end
redis.call('SET', progress, to, 'PX', '31536000000') -- a year
return to
