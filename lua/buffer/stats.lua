-- buffer/stats: count what waits, a bounded number of groups a call
--
-- KEYS[1]  groups   zset  {queue}:groups   group -> waiting length
-- KEYS[2]  since    zset  {queue}:since    group -> ms it became non-empty or was last served
-- KEYS[3]  leases   zset  {queue}:leases   batch id -> ms at which its lease runs out
-- KEYS[4]  delayed  zset  {queue}:delayed  batch id -> ms when it is due again
-- KEYS[5]  dead     zset  {queue}:dead     batch id -> ms at which it was buried
-- KEYS[6]  layout   string  {queue}:layout   the layout of these keys: 1, or absent
-- ARGV[1]  start   int   0..             rank of the first group to count: 0, then the last reply's next
-- ARGV[2]  limit   int   1..5000         groups to count in this call
-- ARGV[3]  now     ms                    empty: the server's clock
-- REPLY    [next, waiting, groups, oldest, leased, delayed, dead, expiry]  next: -1 when done; waiting: items in the
--                                        counted groups; groups: all of them; oldest: ms that the oldest group has
--                                        waited, -1 if none; leased, delayed, dead: batches; expiry: ms at which the
--                                        first lease runs out, -1 if none
-- ERROR    BADARG                        an argument is out of range
-- ERROR    LAYOUT                        these keys are of another layout than this script
-- REPLAY   yes                           it only reads

local groups, since, leases, delayed, dead, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local start, limit, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 6 or #ARGV ~= 3 then
  return redis.error_reply('BADARG stats takes 6 keys and 3 arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(start, '^%d+$') or #start > 15 then
  return redis.error_reply('BADARG start is ' .. string.sub(start, 1, 32) .. ', give 0 or the next of the last reply')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 5000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 5000')
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

local counted = redis.call('ZRANGE', groups, start, start + limit - 1, 'WITHSCORES')
local waiting = 0
for i = 2, #counted, 2 do
  waiting = waiting + tonumber(counted[i])
end

local total = redis.call('ZCARD', groups)
local following = start + limit
if following >= total then
  following = -1
end
local first = redis.call('ZRANGE', since, 0, 0, 'WITHSCORES')
local oldest = -1
if first[2] then
  oldest = math.max(0, now - tonumber(first[2]))
end
local lease = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
local expiry = tonumber(lease[2] or -1)
local leased, later, buried = redis.call('ZCARD', leases), redis.call('ZCARD', delayed), redis.call('ZCARD', dead)
return { following, waiting, total, oldest, leased, later, buried, expiry }
