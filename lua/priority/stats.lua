-- priority/stats: count the members of each state
--
-- KEYS[1]  meta     hash    {queue}:meta     the queue's mark and counters
-- KEYS[2]  ready    zset    {queue}:ready    member -> score, the lowest leaves first
-- KEYS[3]  leases   zset    {queue}:leases   lease id -> ms at which it runs out
-- KEYS[4]  held     set     {queue}:held     members of all leases
-- KEYS[5]  delayed  zset    {queue}:delayed  member -> ms when it is due
-- KEYS[6]  dead     zset    {queue}:dead     member -> ms at which it was buried
-- KEYS[7]  paused   string  {queue}:paused   <until or 0> <reason>
-- ARGV[1]  now      ms                       empty: the server's clock
-- REPLY    [ready, delayed, leased, dead, batches, due, expiry, done, failed, buried, trimmed, pause]
--            leased: members of all leases, removed ones included; batches: leases; due: delayed members that are due
--            and leases that ran out; expiry: ms of the first deadline, or -1; pause: "<until or 0> <reason>" while the
--            queue is paused, or empty
-- ERROR    BADARG                            an argument is out of range
-- ERROR    LAYOUT                            the queue's mark is not 2 fifo or 2 score
-- REPLAY   yes                               it only reads

local call = redis.call
local meta, ready, leases, held, delayed, dead, paused = unpack(KEYS)
local now = ARGV[1]
if #KEYS ~= 7 or #ARGV ~= 1
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': stats takes 7 keys, ms since 1970 or nothing')
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
end
-- end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
-- idiom: paused
local pause = call('GET', paused)
local ends = pause and tonumber(string.match(pause, '^%d+'))
local stopped = ends and (ends == 0 or ends > tonumber(now))
-- end
local expiry = call('ZRANGE', leases, '0', '0', 'WITHSCORES')[2]
local due = call('ZCOUNT', leases, '-inf', now) + call('ZCOUNT', delayed, '-inf', now)
local totals = call('HMGET', meta, 'done', 'failed', 'buried', 'trimmed')
for i = 1, 4 do
  totals[i] = tonumber(totals[i] or 0)
end
return {
  call('ZCARD', ready), call('ZCARD', delayed), call('SCARD', held), call('ZCARD', dead), call('ZCARD', leases), due,
  expiry and tonumber(expiry) or -1, totals[1], totals[2], totals[3], totals[4], stopped and pause or '',
}
