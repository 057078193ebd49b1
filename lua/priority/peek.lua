-- priority/peek: show the most urgent members that are ready, taking none
--
-- KEYS[1]  ready  zset  {queue}:ready      member -> score
-- KEYS[2]  rows   hash  {queue}:rows       member -> score attempts asked asked_due owner
-- KEYS[3]  meta   hash  {queue}:meta       order, sequence
-- KEYS[4]  layout  string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]  order  enum  fifo | score       the order that the caller reads the scores by
-- ARGV[2]  count  int   1..1000
-- REPLY    [member, score, attempts, ...]  lowest score first; attempts: hand-overs so far
-- ERROR    BADARG                          an argument is out of range
-- ERROR    LAYOUT                          these keys are of another layout than this script
-- ERROR    WRONGORDER                      the queue is kept in the other order
-- REPLAY   yes                             it only reads

local ready, rows, meta, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local order, count = ARGV[1], ARGV[2]

if #KEYS ~= 4 or #ARGV ~= 2 then
  return redis.error_reply('BADARG peek takes 4 keys and 2 arguments')
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
-- idiom: order
local kept = redis.call('HGET', meta, 'order') or redis.call('EXISTS', ready) == 1 and 'score'
if kept and kept ~= order then
  return redis.error_reply('WRONGORDER this queue is kept in ' .. kept .. ' order, not in ' .. order)
end
-- end

redis.call('HLEN', rows)
local seen = redis.call('ZRANGE', ready, 0, count - 1, 'WITHSCORES')
local reply = {}
for i = 1, #seen, 2 do
  local row = redis.call('HGET', rows, seen[i])
  reply[#reply + 1] = seen[i]
  reply[#reply + 1] = string.format('%.17g', tonumber(seen[i + 1]))
  reply[#reply + 1] = row and tonumber(string.match(row, '^%S+ (%d+)')) or 0
end
return reply
