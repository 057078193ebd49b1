-- priority/dead: show dead members, in byte order
--
-- KEYS[1]  ready  zset   {queue}:ready  member -> score
-- KEYS[2]  later  zset   {queue}:later  member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows   hash   {queue}:rows   member -> score attempts asked asked_due owner
-- KEYS[4]  meta   hash   {queue}:meta   order, sequence
-- KEYS[5]  layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- ARGV[1]  order  enum   fifo | score   the order that the caller reads the scores by
-- ARGV[2]  limit  int    1..1000
-- ARGV[3]  after  bytes                 the last one seen; empty, or no longer dead: from the start
-- REPLY    [member, score, attempts, ...]
-- ERROR    BADARG  an argument is out of range
-- ERROR    LAYOUT  these keys are of another layout than this script
-- ERROR    WRONGORDER  the queue is kept in the other order
-- REPLAY   yes  it only reads

local ready, later, rows, meta, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local order, limit, after = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 5 or #ARGV ~= 3 then
  return redis.error_reply('BADARG dead takes 5 keys and 3 arguments')
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
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 1000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 1000')
end
-- idiom: order
local kept = redis.call('HGET', meta, 'order') or redis.call('EXISTS', ready) == 1 and 'score'
if kept and kept ~= order then
  return redis.error_reply('WRONGORDER this queue is kept in ' .. kept .. ' order, not in ' .. order)
end
-- end

redis.call('ZCARD', ready)
redis.call('HLEN', rows)
local alive = redis.call('ZCARD', later) - redis.call('ZCOUNT', later, '+inf', '+inf')
local rank = after ~= '' and redis.call('ZRANK', later, after)
local start = rank and math.max(alive, rank + 1) or alive
local members, reply = redis.call('ZRANGE', later, start, start + limit - 1), {}
for i, row in ipairs(#members > 0 and redis.call('HMGET', rows, unpack(members)) or {}) do
  local score, attempts = string.match(row or '', '^(%S+) (%d+) ')
  reply[3 * i - 2], reply[3 * i - 1], reply[3 * i] = members[i], score or '0', tonumber(attempts) or 0
end
return reply
