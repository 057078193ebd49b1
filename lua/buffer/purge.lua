--!df flags=allow-undeclared-keys
-- buffer/purge: throw everything away but pauses, a bounded number of groups and batches a call
--
-- KEYS[1]   meta           hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]   groups         zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]   since          zset    {queue}:since          the same groups -> ms since when they wait
-- KEYS[4]   leases         zset    {queue}:leases         batch id -> ms at which its lease runs out
-- KEYS[5]   delayed        zset    {queue}:delayed        batch id -> ms when it is due again
-- KEYS[6]   dead           zset    {queue}:dead           batch id -> ms at which it was buried
-- KEYS[7]   busy           hash    {queue}:busy           group -> its batch; groups whose items wait until that is over
-- KEYS[8]   paused_groups  zset    {queue}:paused_groups  group -> ms at which its pause ends, or +inf
-- KEYS[9]   wake           list    {queue}:wake           a wake-up for blocked clients
-- KEYS[10]  guard          none    {queue}:guard          never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]   limit          int     1..200                 groups and batches of each kind to purge in this call
-- ARGV[2]   cursor         int     0..999999999           0, then the last reply's
-- COMPUTES  {queue}:items:<group>, {queue}:batch:<id>
-- REPLY     [cursor, items]                               cursor: -1 when done; items: how many were thrown away
-- ERROR     BADARG                                        an argument is out of range
-- ERROR     LAYOUT                                        the queue's mark is not 2 buffer
-- REPLAY    yes                                           a second run counts only what it finds itself

local call = redis.call
local meta, groups, since, leases, delayed, dead, busy, paused_groups, wake = unpack(KEYS)
local limit, cursor = unpack(ARGV)
if #KEYS ~= 10 or #ARGV ~= 2
  or #limit > 3 or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 200
  or #cursor > 9 or not string.find(cursor, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': purge takes 10 keys, 1..200, 0 or the last cursor')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end

local queue, doomed, items = string.sub(meta, 1, -5), {}, 0
local last = string.format('%d', limit - 1)
call('ZCARD', since)
call('LLEN', wake)
local function doom(index, remove, names, kind, header)
  local lists = {}
  for i, name in ipairs(names) do
    lists[i] = queue .. kind .. name
    items = items + math.max(0, call('LLEN', lists[i]) - header)
  end
  if #names > 0 then
    doomed[#doomed + 1] = { index, remove, names, lists }
  end
end
for _, index in ipairs({ leases, delayed, dead }) do
  doom(index, 'ZREM', call('ZRANGE', index, '0', last), 'batch:', 4)
end
doom(groups, 'ZREM', call('ZRANGE', groups, '0', last), 'items:', 0)
-- The items of groups that are busy or paused; the pauses stay, so a cursor leads over them.
doom(busy, 'HDEL', call('HRANDFIELD', busy, limit) or {}, 'items:', 0)
local paused = call('ZRANGE', paused_groups, cursor, string.format('%d', cursor + limit - 1))
local idle = {}
for _, group in ipairs(paused) do
  idle[#idle + 1] = call('HEXISTS', busy, group) == 0 and group or nil -- else it goes with the busy ones
end
doom(nil, nil, idle, 'items:', 0)

-- UNLINK frees a long list in the background: the server is not held while ten million items go.
for _, some in ipairs(doomed) do
  local index, remove, names, lists = unpack(some, 1, 4)
  call('UNLINK', unpack(lists))
  if index then
    call(remove, index, unpack(names))
  end
  if index == groups then
    call('ZREM', since, unpack(names))
  end
end
local following = #paused < tonumber(limit) and cursor or cursor + limit
if call('EXISTS', groups, leases, delayed, dead, busy) > 0 or #paused == tonumber(limit) then
  return { tonumber(following), items }
end
call('UNLINK', wake, meta)
return { -1, items }
