--!df flags=allow-undeclared-keys
-- priority/purge: throw everything away but a pause, a bounded number of leases a call
--
-- KEYS[1]   meta      hash  {queue}:meta      the queue's mark and counters
-- KEYS[2]   ready     zset  {queue}:ready     member -> score, the lowest leaves first
-- KEYS[3]   leases    zset  {queue}:leases    lease id -> ms at which it runs out
-- KEYS[4]   held      set   {queue}:held      members of all leases
-- KEYS[5]   delayed   zset  {queue}:delayed   member -> ms when it is due
-- KEYS[6]   dead      zset  {queue}:dead      member -> ms at which it was buried
-- KEYS[7]   again     hash  {queue}:again     member -> "score due min", "score due set" or "removed"
-- KEYS[8]   rows      hash  {queue}:rows      member -> score attempts reason
-- KEYS[9]   payloads  hash  {queue}:payloads  member -> bytes
-- KEYS[10]  wake      list  {queue}:wake      a wake-up for blocked clients
-- KEYS[11]  guard     none  {queue}:guard     never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]   limit     int   1..500            leases to purge in this call
-- COMPUTES  {queue}:lease:<id>
-- REPLY     [more, members]                   more: 1 when something is left; members: how many were thrown away
-- ERROR     BADARG                            an argument is out of range
-- ERROR     LAYOUT                            the queue's mark is not 2 fifo or 2 score
-- REPLAY    yes                               a second run counts only what it finds itself

local call = redis.call
local meta, ready, leases, held, delayed, dead, again, rows, payloads, wake = unpack(KEYS)
local limit = ARGV[1]
if #KEYS ~= 11 or #ARGV ~= 1
  or #limit > 3 or not string.find(limit, '^[1-9]%d*$') or tonumber(limit) > 500 then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': purge takes 11 keys, 1..500')
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
end
-- end
for _, key in ipairs({ again, rows, payloads }) do
  call('HLEN', key)
end
call('LLEN', wake)
local counts = call('ZCARD', ready) + call('ZCARD', delayed) + call('ZCARD', dead)

-- Lease by lease, so that a purge that is interrupted leaves no member held that no lease names.
local ids, members, lists = {}, {}, {}
call('SCARD', held)
for _, id in ipairs(call('ZRANGE', leases, '0', string.format('%d', limit - 1))) do
  local list = call('LRANGE', string.sub(meta, 1, -5) .. 'lease:' .. id, '1', '-1')
  if #members > 0 and #members + #list / 2 > 1000 then
    break
  end
  ids[#ids + 1], lists[#lists + 1] = id, string.sub(meta, 1, -5) .. 'lease:' .. id
  for i = 1, #list, 2 do
    members[#members + 1] = list[i]
  end
end
if #ids > 0 then
  call('ZREM', leases, unpack(ids))
  call('UNLINK', unpack(lists))
end
if #members > 0 then
  call('SREM', held, unpack(members))
  for _, key in ipairs({ again, rows, payloads }) do
    call('HDEL', key, unpack(members))
  end
end
if call('EXISTS', leases) == 1 then
  return { 1, #members }
end
-- UNLINK frees a large key in the background: the server is not held while ten million members go.
call('UNLINK', ready, held, delayed, dead, again, rows, payloads, wake, meta)
return { 0, #members + counts }
