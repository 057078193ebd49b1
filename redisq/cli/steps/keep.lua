-- Push, and remember the answer for so long that whoever takes up an interrupted adoption finds it.
--
-- KEYS, ARGV, reply: those of push

local answer = push(KEYS, ARGV)
if type(answer) ~= 'table' then
  redis.call('PEXPIRE', once, '31536000000') -- a year
end
return answer
