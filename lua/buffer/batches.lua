--!df flags=allow-undeclared-keys
-- buffer/batches: show the batches that are leased, delayed or dead, the earliest first, a page at a time
--
-- KEYS[1]  meta   hash    {queue}:meta     the queue's mark and counters
-- KEYS[2]  index  zset    {queue}:<state>  batch id -> ms: leases, delayed or dead
-- KEYS[3]  guard  none    {queue}:guard    never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  limit  int     1..100           batches; fewer come when they have more than 4000 items together
-- ARGV[2]  after  string                   the id of the last one that was seen, or empty; from the start if it is not there
-- COMPUTES {queue}:batch:<id>
-- REPLY    [[id, time, group, attempts, holder, reason, [item, ...]], ...]  time: ms of the deadline, due time or death
-- ERROR    BADARG                          an argument is out of range
-- ERROR    LAYOUT                          the queue's mark is not 2 buffer
-- REPLAY   yes                             it only reads

local call = redis.call
local meta, index = unpack(KEYS)
local limit, after = unpack(ARGV)
if #KEYS ~= 3 or #ARGV ~= 2
  or #limit > 3 or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 100 then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': batches takes 3 keys, 1..100')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
local rank = call('ZRANK', index, after)
local first = rank and rank + 1 or 0
local found, size = {}, 0
local ids = call('ZRANGE', index, string.format('%d', first), string.format('%d', first + limit - 1), 'WITHSCORES')
for i = 1, #ids, 2 do
  local batch = string.sub(meta, 1, -5) .. 'batch:' .. ids[i]
  size = size + call('LLEN', batch) - 4
  if size > 4000 and #found > 0 then
    break
  end
  local header = call('LRANGE', batch, '0', '3')
  found[#found + 1] = {
    ids[i], tonumber(ids[i + 1]), header[1] or '', tonumber(header[2]) or 0, header[3] or '', header[4] or '',
    call('LRANGE', batch, '4', '-1'),
  }
end
return found
