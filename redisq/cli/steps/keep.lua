-- steps/keep: push a piece, and remember the answer for so long that whoever takes up the adoption finds it
--
-- KEYS[1+] key    none    {queue}:<key>  those of `inner`, the script in front, which is a push
-- ARGV[1]  until  ms                     pushed only before: later, another process may have pushed the piece, and the
--                                        answer be forgotten
-- ARGV[2+] value  bytes                  those of inner
-- REPLY    answer                        that of inner
-- ERROR    LATE                          it is later than that
-- REPLAY   once                          as inner, for a year or until the piece is dropped, and a day longer

local time = redis.call('TIME')
if tonumber(time[1]) * 1000 >= tonumber(ARGV[1]) then
  return redis.error_reply('LATE these items were read many hours ago, and another process may have pushed them since')
end
local arguments = {}
for i = 2, #ARGV do
  arguments[i - 1] = ARGV[i]
end
local answer = inner(KEYS, arguments)
if type(answer) ~= 'table' then -- else it is an error
  redis.call('PEXPIRE', #KEYS == 6 and KEYS[5] or KEYS[3], '31536000000') -- its once key, in a buffer or not; a year
end
return answer
