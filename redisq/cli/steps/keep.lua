-- Push, and remember the answer for so long that whoever takes up an interrupted adoption finds it.
--
-- KEYS, ARGV, reply: those of the script in front, `inner`, which is a push

local answer = inner(KEYS, ARGV)
if type(answer) ~= 'table' then -- else it is an error
  redis.call('PEXPIRE', #KEYS == 6 and KEYS[5] or KEYS[3], '31536000000') -- its once key, in a buffer or not; a year
end
return answer
