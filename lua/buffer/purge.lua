--!df flags=allow-undeclared-keys
-- buffer/purge: throw everything away, a bounded number of groups and batches a call
--
-- KEYS[1]   groups   zset  {queue}:groups   group -> waiting length
-- KEYS[2]   since    zset  {queue}:since    group -> ms it became non-empty or was last served
-- KEYS[3]   leases   zset  {queue}:leases   batch id -> ms at which its lease runs out
-- KEYS[4]   delayed  zset  {queue}:delayed  batch id -> ms when it is due again
-- KEYS[5]   dead     zset  {queue}:dead     batch id -> ms at which it was buried
-- KEYS[6]   wake     list  {queue}:wake     a token for who waits
-- KEYS[7]   guard    none  {queue}:guard    never exists: while a cluster moves the slot the server says TRYAGAIN
-- KEYS[8]   layout   string  {queue}:layout   the layout of these keys: 1, or absent
-- ARGV[1]   limit    int   1..500           groups, and batches of each kind, to purge in this call
-- COMPUTES  {queue}:items:<group>
-- COMPUTES  {queue}:batch:<id>
-- REPLY     [more, items]                   more: 1 when something is left; items: how many were thrown away
-- ERROR     BADARG                          an argument is out of range
-- ERROR     LAYOUT                          these keys are of another layout than this script
-- REPLAY    yes                             what is gone is gone; a second run counts only what it finds itself

local groups, since, leases, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local dead, wake, guard, layout = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local limit = ARGV[1]

if #KEYS ~= 8 or #ARGV ~= 1 then
  return redis.error_reply('BADARG purge takes 8 keys and 1 argument')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 500 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 500')
end

local queue = string.sub(guard, 1, -6)
redis.call('ZCARD', since)
redis.call('LLEN', wake)
local doomed, count = {}, 0
for _, zset in ipairs({ groups, leases, delayed, dead }) do
  local prefix, header = 'batch:', 2
  if zset == groups then
    prefix, header = 'items:', 0
  end
  local names, lists = redis.call('ZRANGE', zset, 0, limit - 1), {}
  for i, name in ipairs(names) do
    lists[i] = queue .. prefix .. name
    count = count + math.max(0, redis.call('LLEN', lists[i]) - header)
  end
  if #names > 0 then
    doomed[#doomed + 1] = { zset, names, lists }
  end
end

-- UNLINK frees a long list in the background: the server is not held while ten million items go.
for _, some in ipairs(doomed) do
  local zset, names, lists = unpack(some)
  redis.call('UNLINK', unpack(lists))
  redis.call('ZREM', zset, unpack(names))
  if zset == groups then
    redis.call('ZREM', since, unpack(names))
  end
end

if redis.call('EXISTS', groups, leases, delayed, dead) > 0 then
  return { 1, count }
end
redis.call('DEL', wake, layout)
return { 0, count }
