-- priority/extend: keep members of a lease longer
--
-- KEYS[1]   later   zset    {queue}:later    member -> ms when it is ready again, +inf when dead
-- KEYS[2]   rows    hash    {queue}:rows     member -> score attempts asked asked_due owner
-- ARGV[1]   id      string  not empty        the lease's
-- ARGV[2]   lease   int     1..315360000000  ms from now; a later deadline stays
-- ARGV[3]   now     ms                       empty: the server's clock
-- ARGV[4+]  member  bytes   1..1000 of them
-- REPLY     [held, deadline]  how many of them are still held; ms at which the first of them runs out
-- ERROR     BADARG  an argument is out of range
-- ERROR     LEASELOST  none of the members is held by this lease any more
-- REPLAY    yes  the later deadline wins

local later, rows = KEYS[1], KEYS[2]
local id, lease, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 2 or #ARGV < 4 or #ARGV > 1003 then
  return redis.error_reply('BADARG extend takes 2 keys, 3 arguments and 1 to 1000 members')
end
if id == '' then
  return redis.error_reply('BADARG id is empty, give each reserve a new one')
end
if not string.find(lease, '^%d+$') or tonumber(lease) < 1 or tonumber(lease) > 315360000000 then
  return redis.error_reply('BADARG lease is ' .. string.sub(lease, 1, 32) .. ', give whole ms from 1 to 315360000000')
end
-- idiom: clock
if now == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
elseif string.find(now, '^%d+$') and #now < 16 then
  now = tonumber(now)
else
  return redis.error_reply('BADARG now is ' .. string.sub(now, 1, 32) .. ', give whole ms since 1970 or leave it empty')
end
-- end

redis.call('ZCARD', later)
local held, first = 0, math.huge
for i = 4, #ARGV do
  local row = redis.call('HGET', rows, ARGV[i]) or ''
  local due = redis.call('ZSCORE', later, ARGV[i])
  if due and string.match(row, '^%S+ %d+ %S+ %S+ (.*)$') == id then
    local deadline = math.max(tonumber(due), now + lease)
    held, first = held + 1, math.min(first, deadline)
    -- ZREM comes first: it frees, so a full server takes it.
    redis.call('ZREM', later, ARGV[i])
    redis.call('ZADD', later, deadline, ARGV[i])
  end
end
if held == 0 then
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
return { held, first }
