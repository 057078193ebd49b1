--!df flags=allow-undeclared-keys
-- priority/batches: show what is leased, the lease that runs out first first, a page at a time
--
-- KEYS[1]  meta    hash    {queue}:meta    the queue's mark and counters
-- KEYS[2]  leases  zset    {queue}:leases  lease id -> ms at which it runs out
-- KEYS[3]  guard   none    {queue}:guard   never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  order   enum    fifo | score    the order that the caller reads the scores by
-- ARGV[2]  limit   int     1..100          leases; fewer come when they have more than 500 members together
-- ARGV[3]  after   string                  the id of the last one that was seen, or empty; from the start if it is not there
-- COMPUTES {queue}:ready, {queue}:lease:<id>, {queue}:rows, {queue}:payloads
-- REPLY    [[id, deadline, holder, [member, score, ...], [row, ...], [payload, ...]], ...]  row: "score attempts reason"
-- ERROR    BADARG                          an argument is out of range
-- ERROR    LAYOUT                          the queue's mark is not 2 fifo or 2 score
-- ERROR    WRONGORDER                      the queue is kept in the other order
-- REPLAY   yes                             it only reads

local call = redis.call
local meta, leases = unpack(KEYS)
local order, limit, after = unpack(ARGV)
if #KEYS ~= 3 or #ARGV ~= 3
  or order ~= 'fifo' and order ~= 'score' or #limit > 3 or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 100 then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': batches takes 3 keys, fifo or score, 1..100')
end
local queue = string.sub(meta, 1, -5)
local ready = queue .. 'ready'
-- idiom: order
local mark = call('HGET', meta, 'queue')
local kept = mark or call('EXISTS', ready) == 1 and '2 score' -- a plain sorted set is taken as it is
if kept and kept ~= '2 ' .. order then
  local code = (kept == '2 fifo' or kept == '2 score') and 'WRONGORDER' or 'LAYOUT'
  return redis.error_reply(code .. ' this queue is marked ' .. string.sub(kept, 1, 32) .. ', the call is for 2 ' .. order)
end
-- end
local rank = call('ZRANK', leases, after)
local first, found, size = rank and rank + 1 or 0, {}, 0
local ids = call('ZRANGE', leases, string.format('%d', first), string.format('%d', first + limit - 1), 'WITHSCORES')
for i = 1, #ids, 2 do
  local list, members = call('LRANGE', queue .. 'lease:' .. ids[i], '0', '-1'), {}
  for j = 2, #list, 2 do
    members[#members + 1] = list[j]
  end
  size = size + #members
  if size > 500 and #found > 0 then
    break
  end
  local known = #members > 0 and call('HMGET', queue .. 'rows', unpack(members)) or {}
  local payloads = #members > 0 and call('HMGET', queue .. 'payloads', unpack(members)) or {}
  found[#found + 1] = { ids[i], tonumber(ids[i + 1]), table.remove(list, 1) or '', list, known, payloads }
end
return found
