-- priority/reserve: take the most urgent members, charge the rates and lease them
--
-- KEYS[1]   ready         zset    {queue}:ready       member -> score
-- KEYS[2]   later         zset    {queue}:later       member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows          hash    {queue}:rows        member -> score attempts asked asked_due owner
-- KEYS[4]   meta          hash    {queue}:meta        order, sequence
-- KEYS[5]   held          list    {queue}:lease:<id>  held and its members, then how the lease ended
-- KEYS[6]   grants        zset    {queue}:grants      "<granted before it> <granted>" -> ms of the grant
-- KEYS[7]   wake          list    {queue}:wake        a token for who waits
-- KEYS[8]   layout        string  {queue}:layout      the layout of these keys: 1, or absent
-- ARGV[1]   order         enum    fifo | score        the order that the caller reads the scores by
-- ARGV[2]   id            string  not empty           new for each reserve: it becomes the lease's
-- ARGV[3]   size          int     1..1000             how many members at most
-- ARGV[4]   lease         int     1..315360000000     ms
-- ARGV[5]   max_attempts  int     0..1000000000       hand-overs after which a member is dead, 0: never
-- ARGV[6]   window        int     0..604800000        ms that the lease is remembered after its deadline
-- ARGV[7]   now           ms                          empty: the server's clock
-- ARGV[8+]  rate          pairs   limit per           none or more: at most limit batches in any span of per ms
-- REPLY     [retry, [dead member, ...], deadline, [member, score, attempts, ...]]  lowest score first;
--                     attempts: hand-overs, this one included; dead: buried on the way, their lease having
--                     run out once too often; nothing taken: deadline is 0, ask again in retry ms, -1: when
--                     a member is pushed
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- ERROR     WRONGORDER  the queue is kept in the other order
-- REPLAY    lease  the same id: what is still held of the same batch, until some of it is settled, then nothing

local ready, later, rows, meta, held, grants, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local layout = KEYS[8]
local order, id, size, lease, max_attempts, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

if #KEYS ~= 8 or #ARGV < 7 or #ARGV % 2 ~= 1 then
  return redis.error_reply('BADARG reserve takes 8 keys, 7 arguments and pairs of limit and per')
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
if id == '' then
  return redis.error_reply('BADARG id is empty, give each reserve a new one')
end
if not string.find(size, '^%d+$') or tonumber(size) < 1 or tonumber(size) > 1000 then
  return redis.error_reply('BADARG size is ' .. string.sub(size, 1, 32) .. ', give a whole number from 1 to 1000')
end
if not string.find(lease, '^%d+$') or tonumber(lease) < 1 or tonumber(lease) > 315360000000 then
  return redis.error_reply('BADARG lease is ' .. string.sub(lease, 1, 32) .. ', give whole ms from 1 to 315360000000')
end
if not string.find(max_attempts, '^%d+$') or tonumber(max_attempts) > 1000000000 then
  return redis.error_reply('BADARG max_attempts is ' .. string.sub(max_attempts, 1, 32) .. ', give 0..1000000000')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end
for i = 8, #ARGV do
  if not string.find(ARGV[i], '^%d+$') or tonumber(ARGV[i]) < 1 or tonumber(ARGV[i]) > 315360000000 then
    return redis.error_reply('BADARG rate is ' .. string.sub(ARGV[i], 1, 32) .. ', give limit and per as 1..315360000000')
  end
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

redis.call('HLEN', rows)
local tokens = redis.call('LLEN', wake)

-- The reply was lost and the call is sent again: what is still held of the same batch, and never a second one.
local remembered = redis.call('LRANGE', held, 0, -1)
if #remembered > 0 then
  local deadline, items = 0, {}
  if remembered[1] == 'held' then
    local dues = redis.call('ZMSCORE', later, unpack(remembered))
    for i, row in ipairs(redis.call('HMGET', rows, unpack(remembered))) do
      local score, attempts, owner = string.match(row or '', '^(%S+) (%d+) %S+ %S+ (.*)$')
      if i > 1 and owner == id then
        deadline = tonumber(dues[i])
        items[#items + 1] = remembered[i]
        items[#items + 1] = score
        items[#items + 1] = tonumber(attempts)
      end
    end
  end
  return { #items > 0 and 0 or -1, {}, deadline, items }
end

local first_rate = 8
-- idiom: rates
-- As in limit/acquire, for a cost of 1: what a span has seen is the total less what its first grant says.
local newest = redis.call('ZREVRANGE', grants, 0, 0, 'WITHSCORES')
local before, last = string.match(newest[1] or '', '^(%d+) (%d+)$')
local total, longest, closed = (before or 0) + (last or 0), 0, 0
local granted_at = math.max(now, tonumber(newest[2] or 0))
for i = first_rate, #ARGV, 2 do
  local limit, per = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local first = redis.call('ZRANGEBYSCORE', grants, granted_at - per, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[1] and total - (string.match(first[1], '^%d+') or 0) >= limit then
    closed = math.max(closed, first[2] + per + 1 - now)
  end
  longest = math.max(longest, per)
end
-- end
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
if closed > 0 then
  return { closed, buried, 0, {} }
end

local taken = redis.call('ZPOPMIN', ready, size)
if #taken == 0 then
  return { retry, buried, 0, {} }
end
local members, deadline = {}, now + lease
for i = 1, #taken, 2 do
  members[#members + 1] = taken[i]
end
local old, items, leases, new = redis.call('HMGET', rows, unpack(members)), {}, {}, {}
for i, member in ipairs(members) do
  local score = string.format('%.17g', tonumber(taken[2 * i]))
  local attempts = (tonumber(string.match(old[i] or '', '^%S+ (%d+)')) or 0) + 1
  items[3 * i - 2], items[3 * i - 1], items[3 * i] = member, score, attempts
  leases[2 * i - 1], leases[2 * i] = deadline, member
  new[2 * i - 1], new[2 * i] = member, score .. ' ' .. attempts .. ' - - ' .. id
end
redis.call('ZADD', later, unpack(leases))
redis.call('HSET', rows, unpack(new))
redis.call('RPUSH', held, 'held', unpack(members))
redis.call('PEXPIRE', held, lease + window)
-- idiom: charge
if longest > 0 then
  redis.call('ZADD', grants, granted_at, string.format('%016.0f 1', total))
  local expired = redis.call('ZCOUNT', grants, '-inf', '(' .. string.format('%.0f', granted_at - longest))
  if expired > 0 then
    redis.call('ZREMRANGEBYRANK', grants, 0, math.min(expired, 100) - 1)
  end
  redis.call('PEXPIRE', grants, longest + 1000)
end
-- end
if tokens == 0 and redis.call('EXISTS', ready) == 1 then
  redis.call('LPUSH', wake, 1) -- there is more: whoever waits next is to look
end
return { 0, buried, deadline, items }
