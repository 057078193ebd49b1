--!df flags=allow-undeclared-keys
-- buffer/pop: take the oldest items of one group and forget them
--
-- KEYS[1]  meta    hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]  groups  zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]  since   zset    {queue}:since          the same groups -> ms since when they wait
-- KEYS[4]  items   list    {queue}:items:<group>  waiting items, oldest left
-- KEYS[5]  paused  string  {queue}:paused         <until or 0> <reason>
-- KEYS[6]  guard   none    {queue}:guard          never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  group   string  not empty
-- ARGV[2]  size    int     1..5000                items at most
-- ARGV[3]  now     ms                             empty: the server's clock
-- COMPUTES {queue}:leases, {queue}:delayed, {queue}:dead, {queue}:busy, {queue}:paused_groups, {queue}:wake
-- REPLY    [item, ...]                            oldest first; none: the group is empty, busy or paused, or the queue paused
-- ERROR    BADARG                                 an argument is out of range
-- ERROR    LAYOUT                                 the queue's mark is not 2 buffer
-- REPLAY   no                                     a second run takes other items: where that matters, reserve

local call = redis.call
local meta, groups, since, items, paused = unpack(KEYS)
local group, size, now = unpack(ARGV)
if #KEYS ~= 6 or #ARGV ~= 3
  or group == '' or #size > 4 or not string.find(size, '^[1-9]%d*$') or tonumber(size) > 5000
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': pop takes 6 keys, a name, 1..5000, ms since 1970 or nothing')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
-- idiom: paused
local pause = call('GET', paused)
local ends = pause and tonumber(string.match(pause, '^%d+'))
local stopped = ends and (ends == 0 or ends > tonumber(now))
-- end
if stopped then return {} end

call('ZCARD', since)
local left = call('LLEN', items) - size
if not call('ZRANK', groups, group) then
  local queue = string.sub(meta, 1, -5)
  local over = call('ZSCORE', queue .. 'paused_groups', group)
  if not over or tonumber(over) > tonumber(now) or call('HEXISTS', queue .. 'busy', group) == 1 then
    return {}
  end
  call('ZREM', queue .. 'paused_groups', group) -- its pause has ended: it may be chosen again
end
local taken = call('LPOP', items, size) or {}
if left > 0 then
  call('ZADD', groups, string.format('%d', left), group)
  call('ZADD', since, now, group)
  return taken
end
call('ZREM', groups, group)
call('ZREM', since, group)
local queue = string.sub(meta, 1, -5)
-- idiom: buffer drained
local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
if call('EXISTS', unpack(kept)) == 0 then
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
end
-- end
return taken
