--!df flags=allow-undeclared-keys
-- priority/members: show members that are ready, delayed or dead, in order, a page at a time
--
-- KEYS[1]  meta   hash   {queue}:meta     the queue's mark and counters
-- KEYS[2]  index  zset   {queue}:<state>  ready, delayed or dead: member -> score, ms when it is due, or ms of its death
-- KEYS[3]  guard  none   {queue}:guard    never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  order  enum   fifo | score     the order that the caller reads the scores by
-- ARGV[2]  limit  int    1..500           members
-- ARGV[3]  start  int    0..999999999     how many to pass over
-- ARGV[4]  after  bytes  0..1             if given and there, start behind it instead
-- COMPUTES {queue}:ready, {queue}:rows, {queue}:payloads
-- REPLY    [[member, score or ms, ...], [row, ...], [payload, ...]]  row: "score attempts reason"; nil where there is none
-- ERROR    BADARG                         an argument is out of range
-- ERROR    LAYOUT                         the queue's mark is not 2 fifo or 2 score
-- ERROR    WRONGORDER                     the queue is kept in the other order
-- REPLAY   yes                            it only reads

local call = redis.call
local meta, index = unpack(KEYS)
local order, limit, start, after = unpack(ARGV)
if #KEYS ~= 3 or #ARGV < 3 or #ARGV > 4
  or order ~= 'fifo' and order ~= 'score' or #limit > 3 or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 500
  or #start > 9 or not string.find(start, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': members takes 3 keys, fifo or score, 1..500, 0..999999999')
end
local ready = string.sub(meta, 1, -5) .. 'ready'
-- idiom: order
local mark = call('HGET', meta, 'queue')
local kept = mark or call('EXISTS', ready) == 1 and '2 score' -- a plain sorted set is taken as it is
if kept and kept ~= '2 ' .. order then
  local code = (kept == '2 fifo' or kept == '2 score') and 'WRONGORDER' or 'LAYOUT'
  return redis.error_reply(code .. ' this queue is marked ' .. string.sub(kept, 1, 32) .. ', the call is for 2 ' .. order)
end
-- end
local rank = after and call('ZRANK', index, after)
start = rank and rank + 1 or start
local found, members = call('ZRANGE', index, start, string.format('%d', start + limit - 1), 'WITHSCORES'), {}
for i = 1, #found, 2 do
  members[#members + 1] = found[i]
end
if #members == 0 then
  return { {}, {}, {} }
end
local queue = string.sub(meta, 1, -5)
return { found, call('HMGET', queue .. 'rows', unpack(members)), call('HMGET', queue .. 'payloads', unpack(members)) }
