-- steps/run: a step of an import that another script, `inner`, can do
--
-- KEYS[1]  progress  string  {queue}:once:import-<file>  how many lines are restored, after "merge" or not
-- KEYS[2+] key       none    {queue}:<key>               those of inner
-- ARGV[1]  from      string                              the progress at which this step begins
-- ARGV[2]  to        string                              the progress to which it leads
-- ARGV[3+] value     bytes                               those of inner
-- REPLY    progress                                      `to`, or where the import is: then nothing has been done
-- ERROR    BADARG, LAYOUT                                those of inner; the progress is not changed
-- REPLAY   once                                          it begins at one progress, and ends that

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
