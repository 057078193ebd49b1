-- priority/ack: settle members of a lease: they are done
--
-- KEYS[1]   ready   zset    {queue}:ready       member -> score
-- KEYS[2]   later   zset    {queue}:later       member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows    hash    {queue}:rows        member -> score attempts asked asked_due owner
-- KEYS[4]   held    list    {queue}:lease:<id>  held and its members, then how the lease ended
-- KEYS[5]   wake    list    {queue}:wake        a token for who waits
-- KEYS[6]   layout  string  {queue}:layout      the layout of these keys: 1, or absent
-- KEYS[7]   guard   none    {queue}:guard       never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]   id      string  not empty           the lease's
-- ARGV[2]   window  int     0..604800000        ms that the answer is remembered, 0: not at all
-- ARGV[3]   now     ms                          empty: the server's clock
-- ARGV[4+]  member  bytes   1..1000 of them
-- REPLY     done  how many of them were still held, and are done
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- ERROR     LEASELOST  none of the members is held by this lease any more
-- REPLAY    lease  the same answer; a push that was noted meanwhile is ready once more, once

local ready, later, rows, held, wake, layout, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, window, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 7 or #ARGV < 4 or #ARGV > 1003 then
  return redis.error_reply('BADARG ack takes 7 keys, 3 arguments and 1 to 1000 members')
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

redis.call('ZCARD', ready)
redis.call('ZCARD', later)
local tokens = redis.call('LLEN', wake)
local ended = redis.call('LRANGE', held, 0, -1)
local first = select(4, unpack(ARGV, 1, 4)) -- the member that a call is remembered by

local settled, seen = {}, {}
local fresh, ripe, parked = {}, {}, {}
for i, row in ipairs(redis.call('HMGET', rows, unpack(ARGV, 4))) do
  local member = ARGV[i + 3]
  local asked, asked_due, owner = string.match(row or '', '^%S+ %d+ (%S+) (%S+) (.*)$')
  if owner == id and not seen[member] then
    seen[member] = true
    settled[#settled + 1] = member
    -- Pushed while it was worked on: it comes once more, afresh. Forgetting that is the recipe's lost update.
    if asked ~= '-' then
      fresh[#fresh + 1], fresh[#fresh + 2] = member, asked .. ' 0 - - '
      if tonumber(asked_due) <= now then
        ripe[#ripe + 1], ripe[#ripe + 2] = asked, member
      else
        parked[#parked + 1], parked[#parked + 2] = asked_due, member
      end
    end
  end
end
local done = #settled
if done == 0 then
  for i = 1, ended[1] ~= 'held' and #ended or 0, 2 do
    local before = ended[i + 1] == first and string.match(ended[i], '^ack (%d+)$')
    if before then
      return tonumber(before)
    end
  end
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end

-- ZREM comes first: it frees, so a full server takes the ack.
redis.call('ZREM', later, unpack(settled))
redis.call('HDEL', rows, unpack(settled))
if #fresh > 0 then
  redis.call('HSET', rows, unpack(fresh))
end
if #ripe > 0 then
  redis.call('ZADD', ready, unpack(ripe))
end
if #parked > 0 then
  redis.call('ZADD', later, unpack(parked))
end
if #fresh > 0 and tokens == 0 then
  redis.call('LPUSH', wake, 1)
end
if ended[1] == 'held' then
  redis.call('DEL', held)
end
if tonumber(window) > 0 then
  redis.call('RPUSH', held, 'ack ' .. done, first) -- what this call did, by its first member
  redis.call('PEXPIRE', held, window)
end
return done
