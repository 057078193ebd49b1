-- priority/release: give members of a lease back
--
-- KEYS[1]   ready         zset    {queue}:ready       member -> score
-- KEYS[2]   later         zset    {queue}:later       member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows          hash    {queue}:rows        member -> score attempts asked asked_due owner
-- KEYS[4]   held          list    {queue}:lease:<id>  held and its members, then how the lease ended
-- KEYS[5]   wake          list    {queue}:wake        a token for who waits
-- KEYS[6]   layout        string  {queue}:layout      the layout of these keys: 1, or absent
-- KEYS[7]   guard         none    {queue}:guard       never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]   id            string  not empty           the lease's
-- ARGV[2]   max_attempts  int     0..1000000000       hand-overs after which a member is dead, 0: never
-- ARGV[3]   delay         int     0..315360000000     ms until they are ready again
-- ARGV[4]   attempt       enum    count | forget      forget: this hand-over does not count, nobody began on it
-- ARGV[5]   window        int     0..604800000        ms that the answer is remembered, 0: not at all
-- ARGV[6]   now           ms                          empty: the server's clock
-- ARGV[7+]  member        bytes   1..1000 of them
-- REPLY     [back, dead member, ...]  how many of them were still held, and are given back; those that are
--                     dead instead, their attempts used up
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- ERROR     LEASELOST  none of the members is held by this lease any more
-- REPLAY    lease  the same answer

local ready, later, rows, held, wake, layout, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, max_attempts, delay, attempt, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

if #KEYS ~= 7 or #ARGV < 7 or #ARGV > 1006 then
  return redis.error_reply('BADARG release takes 7 keys, 6 arguments and 1 to 1000 members')
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
if not string.find(max_attempts, '^%d+$') or tonumber(max_attempts) > 1000000000 then
  return redis.error_reply('BADARG max_attempts is ' .. string.sub(max_attempts, 1, 32) .. ', give 0..1000000000')
end
if not string.find(delay, '^%d+$') or tonumber(delay) > 315360000000 then
  return redis.error_reply('BADARG delay is ' .. string.sub(delay, 1, 32) .. ', give whole ms from 0 to 315360000000')
end
if attempt ~= 'count' and attempt ~= 'forget' then
  return redis.error_reply('BADARG attempt is ' .. string.sub(attempt, 1, 32) .. ', give count or forget')
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
local first = select(7, unpack(ARGV, 1, 7)) -- the member that a call is remembered by

-- idiom: back
-- Members come back: a delay is over, their holder gave them back, or their holder died. A push that was noted meanwhile
-- counts, and outlives the member's own death. ZREM comes first: it frees, so a full server lets the rest follow.
local function finite(text)
  local number = tonumber(text)
  return number and number - number == 0
end
local function back(members, old, due, uncounted)
  local most = tonumber(max_attempts)
  local ripe, parked, new, buried = {}, {}, {}, {}
  for i, member in ipairs(members) do
    local at = due
    local score, attempts, asked, asked_due, owner = string.match(old[i] or '', '^(%S+) (%d+) (%S+) (%S+) (.*)$')
    if not finite(score) or asked ~= '-' and not (finite(asked) and finite(asked_due)) then
      score, attempts, asked, owner = '0', 0, '-', '' -- a row that cannot be read must not cost the member
    end
    attempts = math.max(0, attempts - uncounted)
    if owner ~= '' and most > 0 and attempts >= most then
      if asked == '-' then
        at, buried[#buried + 1] = math.huge, member
      else
        score, attempts, at = asked, 0, tonumber(asked_due)
      end
    elseif asked ~= '-' then
      at = math.min(at, tonumber(asked_due))
      if tonumber(asked) < tonumber(score) then
        score = asked
      end
    end
    if at <= now then
      ripe[#ripe + 1], ripe[#ripe + 2] = score, member
    else
      parked[#parked + 1], parked[#parked + 2] = at, member
    end
    new[2 * i - 1], new[2 * i] = member, score .. ' ' .. attempts .. ' - - '
  end
  redis.call('ZREM', later, unpack(members))
  if #ripe > 0 then
    redis.call('ZADD', ready, unpack(ripe))
  end
  if #parked > 0 then
    redis.call('ZADD', later, unpack(parked))
  end
  redis.call('HSET', rows, unpack(new))
  return buried
end
-- end

local members, old, place = {}, {}, {}
for i, row in ipairs(redis.call('HMGET', rows, unpack(ARGV, 7))) do
  local member = ARGV[i + 6]
  if string.match(row or '', '^%S+ %d+ %S+ %S+ (.*)$') == id and not place[member] then
    place[member] = i + 6
    members[#members + 1], old[#old + 1] = member, row
  end
end
if #members == 0 then
  for i = 1, ended[1] ~= 'held' and #ended or 0, 2 do
    local before, buried = string.match(ended[i], '^release (%d+)(.*)$')
    if before and ended[i + 1] == first then
      local reply = { tonumber(before) }
      for at in string.gmatch(buried, '%d+') do
        reply[#reply + 1] = ARGV[tonumber(at)]
      end
      return reply
    end
  end
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end

local dead = back(members, old, now + delay, attempt == 'forget' and 1 or 0)
if tokens == 0 then
  redis.call('LPUSH', wake, 1)
end
if ended[1] == 'held' then
  redis.call('DEL', held)
end
if tonumber(window) > 0 then
  local did = { 'release', #members }
  for i, member in ipairs(dead) do
    did[i + 2] = place[member]
  end
  redis.call('RPUSH', held, table.concat(did, ' '), first) -- what this call did, by its first member
  redis.call('PEXPIRE', held, window)
end
return { #members, unpack(dead) }
