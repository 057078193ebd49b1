-- buffer/peek: show waiting items of a group, oldest first
--
-- KEYS[1]  meta   hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]  items  list    {queue}:items:<group>  waiting items, oldest left
-- ARGV[1]  group  string  not empty
-- ARGV[2]  start  int     0..999999999           how many of the oldest to pass over
-- ARGV[3]  count  int     1..1000                items at most
-- REPLY    [item, ...]                           oldest first
-- ERROR    BADARG                                an argument is out of range
-- ERROR    LAYOUT                                the queue's mark is not 2 buffer
-- REPLAY   yes                                   it only reads

local call = redis.call
local meta, items = unpack(KEYS)
local group, start, count = unpack(ARGV)
if #KEYS ~= 2 or #ARGV ~= 3 or group == '' or #start > 9 or not string.find(start, '^%d+$')
  or #count > 4 or not string.find(count, '^[1-9]%d*$') or tonumber(count) > 1000 then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': peek takes 2 keys, a group, 0..999999999, 1..1000')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
return call('LRANGE', items, string.format('%d', start), string.format('%d', start + count - 1))
