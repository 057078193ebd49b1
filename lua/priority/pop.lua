-- priority/pop: take the most urgent members
--
-- KEYS[1]  ready         zset  {queue}:ready  member -> score
-- KEYS[2]  later         zset  {queue}:later  member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows          hash  {queue}:rows   member -> score attempts asked asked_due owner
-- KEYS[4]  meta          hash  {queue}:meta   order, sequence
-- KEYS[5]  wake          list  {queue}:wake   a token for who waits
-- KEYS[6]  layout        string  {queue}:layout  the layout of these keys: 1, or absent
-- KEYS[7]  guard         none    {queue}:guard   never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]  order         enum  fifo | score   the order that the caller reads the scores by
-- ARGV[2]  count         int   1..1000
-- ARGV[3]  max_attempts  int   0..1000000000  hand-overs after which a member is dead, 0: never
-- ARGV[4]  now           ms                   empty: the server's clock
-- REPLY    [retry, [dead member, ...], [member, score, attempts, ...]]  lowest score first
--                    attempts: hand-overs, this one included; dead: buried on the way, their lease having
--                    run out once too often; retry: ms until a member is due, 0: now, -1: when one is pushed
-- ERROR    BADARG  an argument is out of range
-- ERROR    LAYOUT  these keys are of another layout than this script
-- ERROR    WRONGORDER  the queue is kept in the other order
-- REPLAY   no  a second run takes other members: where that matters, reserve

local ready, later, rows, meta, wake, layout, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local order, count, max_attempts, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 7 or #ARGV ~= 4 then
  return redis.error_reply('BADARG pop takes 7 keys and 4 arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if order ~= 'fifo' and order ~= 'score' then
  return redis.error_reply('BADARG order is ' .. string.sub(order, 1, 32) .. ', give fifo or score')
end
if not string.find(count, '^%d+$') or tonumber(count) < 1 or tonumber(count) > 1000 then
  return redis.error_reply('BADARG count is ' .. string.sub(count, 1, 32) .. ', give a whole number from 1 to 1000')
end
if not string.find(max_attempts, '^%d+$') or tonumber(max_attempts) > 1000000000 then
  return redis.error_reply('BADARG max_attempts is ' .. string.sub(max_attempts, 1, 32) .. ', give 0..1000000000')
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
-- idiom: order
local kept = redis.call('HGET', meta, 'order') or redis.call('EXISTS', ready) == 1 and 'score'
if kept and kept ~= order then
  return redis.error_reply('WRONGORDER this queue is kept in ' .. kept .. ' order, not in ' .. order)
end
-- end

local tokens = redis.call('LLEN', wake)

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
-- idiom: wake
-- Up to 100 members that are due, earliest first: no daemon is needed to bring them back.
local buried, retry = {}, -1
local following = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
if following[2] and tonumber(following[2]) <= now then
  redis.call('ZCARD', ready) -- of another type, it stops the script here
  local due = redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, 100)
  buried = back(due, redis.call('HMGET', rows, unpack(due)), now, 0)
  following = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
end
if following[2] and tonumber(following[2]) < math.huge then
  retry = math.max(0, following[2] - now)
end
-- end

local noted = redis.call('HLEN', rows) > 0
local taken, members, items = redis.call('ZPOPMIN', ready, count), {}, {}
for i = 1, #taken, 2 do
  members[#members + 1], retry = taken[i], 0
end
local old = noted and #members > 0 and redis.call('HMGET', rows, unpack(members)) or {}
for i, member in ipairs(members) do
  local attempts = tonumber(string.match(old[i] or '', '^%S+ (%d+)')) or 0
  items[3 * i - 2], items[3 * i - 1], items[3 * i] = member, string.format('%.17g', tonumber(taken[2 * i])), attempts + 1
end
if #old > 0 then
  redis.call('HDEL', rows, unpack(members))
end
if tokens == 0 and redis.call('EXISTS', ready) == 1 then
  redis.call('LPUSH', wake, 1) -- there is more: whoever waits next is to look
end
return { retry, buried, items }
