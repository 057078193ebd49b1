-- priority/pop: take the most urgent members
--
-- KEYS[1]  ready         zset  {queue}:ready       member -> score
-- KEYS[2]  later         zset  {queue}:later       member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows          hash  {queue}:rows        member -> score attempts asked asked_due owner
-- KEYS[4]  meta          hash  {queue}:meta        order, sequence
-- ARGV[1]  order         enum  fifo | score        the order that the caller reads the scores by
-- ARGV[2]  count         int   1..1000
-- ARGV[3]  max_attempts  int   0..1000000000       hand-overs after which an expired lease is dead, 0: never
-- ARGV[4]  now           ms                        empty: the server's clock
-- REPLY    [member, score, attempts, ...]          lowest score first; attempts: hand-overs, this one included
-- ERROR    BADARG                                  an argument is out of range
-- ERROR    WRONGORDER                              the queue is kept in the other order
-- REPLAY   no                                      a second run takes other members: where that matters, reserve

local ready, later, rows, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local order, count, max_attempts, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 4 or #ARGV ~= 4 then
  return redis.error_reply('BADARG pop takes 4 keys and 4 arguments')
end
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

redis.call('ZCARD', ready)
redis.call('HLEN', rows)

-- idiom: wake
-- Up to 100 members that are due, earliest first: delays that are over, and leases that a crash left behind.
-- ZREM comes first: it frees, so a full server lets the rest follow.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, 100)) do
  local row = redis.call('HGET', rows, member) or '0 0 - - '
  local score, attempts, asked, asked_due, owner = string.match(row, '^(%S+) (%d+) (%S+) (%S+) (.*)$')
  local due = now
  if owner ~= '' and tonumber(max_attempts) > 0 and tonumber(attempts) >= tonumber(max_attempts) then
    if asked == '-' then
      due = math.huge
    else
      score, attempts, due = asked, 0, tonumber(asked_due)
    end
  elseif asked ~= '-' and tonumber(asked) < tonumber(score) then
    score = asked
  end
  redis.call('ZREM', later, member)
  if due <= now then
    redis.call('ZADD', ready, score, member)
  else
    redis.call('ZADD', later, due == math.huge and '+inf' or due, member)
  end
  redis.call('HSET', rows, member, score .. ' ' .. attempts .. ' - - ')
end
-- end

local taken = redis.call('ZPOPMIN', ready, count)
local reply = {}
for i = 1, #taken, 2 do
  local member = taken[i]
  local row = redis.call('HGET', rows, member)
  local attempts = row and tonumber(string.match(row, '^%S+ (%d+)')) or 0
  redis.call('HDEL', rows, member)
  reply[#reply + 1] = member
  reply[#reply + 1] = string.format('%.17g', tonumber(taken[i + 1]))
  reply[#reply + 1] = attempts + 1
end
return reply
