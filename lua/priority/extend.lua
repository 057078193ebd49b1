-- priority/extend: keep members of a lease longer
--
-- KEYS[1]   later   zset    {queue}:later    member -> ms when it is ready again, +inf when dead
-- KEYS[2]   rows    hash    {queue}:rows     member -> score attempts asked asked_due owner
-- KEYS[3]   held    list    {queue}:lease:<id>  held and its members, then how the lease ended
-- KEYS[4]   layout  string  {queue}:layout      the layout of these keys: 1, or absent
-- ARGV[1]   id      string  not empty        the lease's
-- ARGV[2]   lease   int     1..315360000000  ms from now; a later deadline stays
-- ARGV[3]   window  int     0..604800000     ms that the lease is remembered after its deadline
-- ARGV[4]   now     ms                       empty: the server's clock
-- ARGV[5+]  member  bytes   1..1000 of them
-- REPLY     [held, deadline]  how many of them are still held; ms at which the first of them runs out
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- ERROR     LEASELOST  none of the members is held by this lease any more
-- REPLAY    yes  the later deadline wins

local later, rows, held, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, lease, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 4 or #ARGV < 5 or #ARGV > 1004 then
  return redis.error_reply('BADARG extend takes 4 keys, 4 arguments and 1 to 1000 members')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if id == '' then
  return redis.error_reply('BADARG id is empty, give each reserve a new one')
end
if not string.find(lease, '^%d+$') or tonumber(lease) < 1 or tonumber(lease) > 315360000000 then
  return redis.error_reply('BADARG lease is ' .. string.sub(lease, 1, 32) .. ', give whole ms from 1 to 315360000000')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
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
redis.call('LLEN', held)
local owned = redis.call('HMGET', rows, unpack(ARGV, 5))
local first, members, deadlines, seen = math.huge, {}, {}, {}
for i, due in ipairs(redis.call('ZMSCORE', later, unpack(ARGV, 5))) do
  local member = ARGV[i + 4]
  if due and not seen[member] and string.match(owned[i] or '', '^%S+ %d+ %S+ %S+ (.*)$') == id then
    local deadline = math.max(tonumber(due), now + lease)
    seen[member], first, members[#members + 1] = true, math.min(first, deadline), member
    deadlines[#deadlines + 1] = deadline
    deadlines[#deadlines + 1] = member
  end
end
if #members == 0 then
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- ZREM comes first: it frees, so a full server takes it.
redis.call('ZREM', later, unpack(members))
redis.call('ZADD', later, unpack(deadlines))
-- What a reserve that is sent again answers by lives as long as the lease.
if redis.call('PTTL', held) < first - now + window then
  redis.call('PEXPIRE', held, first - now + window)
end
return { #members, first }
