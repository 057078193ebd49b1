--!df flags=allow-undeclared-keys
-- buffer/groups: name the groups of a state and their waiting lengths, a page at a time
--
-- KEYS[1]  meta           hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]  groups         zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]  busy           hash    {queue}:busy           group -> its batch; groups whose items wait until that is over
-- KEYS[4]  paused_groups  zset    {queue}:paused_groups  group -> ms at which its pause ends, or +inf
-- KEYS[5]  guard          none    {queue}:guard          never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  state          enum    waiting | busy | paused
-- ARGV[2]  limit          int     1..1000                groups; busy: about so many
-- ARGV[3]  cursor         int     0..999999999999999999  0, then the last reply's
-- COMPUTES {queue}:items:<group>
-- REPLY    [cursor, [group, length, ...]]                waiting: longest first; cursor: 0 when there are no more
-- ERROR    BADARG                                        an argument is out of range
-- ERROR    LAYOUT                                        the queue's mark is not 2 buffer
-- REPLAY   yes                                           it only reads

local call = redis.call
local meta, groups, busy, paused_groups = unpack(KEYS)
local state, limit, cursor = unpack(ARGV)
if #KEYS ~= 5 or #ARGV ~= 3
  or state ~= 'waiting' and state ~= 'busy' and state ~= 'paused' or #limit > 4 or not string.find(limit, '^[1-9]%d*$')
  or tonumber(limit) > 1000 or #cursor > 18 or not string.find(cursor, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': groups takes 5 keys, waiting, busy or paused, 1..1000, 0 or the last cursor')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
local names, following
if state == 'busy' then
  local page = call('HSCAN', busy, cursor, 'COUNT', limit)
  following, names = tonumber(page[1]), {}
  for i = 1, #page[2], 2 do
    names[#names + 1] = page[2][i]
  end
else
  local index = state == 'waiting' and groups or paused_groups
  names = call(index == groups and 'ZREVRANGE' or 'ZRANGE', index, cursor, string.format('%d', cursor + limit - 1))
  following = call('ZCARD', index) > cursor + limit and cursor + limit or 0
end
local found = {}
for _, group in ipairs(names) do
  found[#found + 1] = group
  found[#found + 1] = call('LLEN', string.sub(meta, 1, -5) .. 'items:' .. group)
end
return { following, found }
