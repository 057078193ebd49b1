--!df flags=allow-undeclared-keys
-- buffer/stats: count what is there, a bounded number of groups a call
--
-- KEYS[1]   meta           hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]   groups         zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]   since          zset    {queue}:since          the same groups -> ms since when they wait
-- KEYS[4]   leases         zset    {queue}:leases         batch id -> ms at which its lease runs out
-- KEYS[5]   delayed        zset    {queue}:delayed        batch id -> ms when it is due again
-- KEYS[6]   dead           zset    {queue}:dead           batch id -> ms at which it was buried
-- KEYS[7]   busy           hash    {queue}:busy           group -> its batch; groups whose items wait until that is over
-- KEYS[8]   paused         string  {queue}:paused         <until or 0> <reason>
-- KEYS[9]   paused_groups  zset    {queue}:paused_groups  group -> ms at which its pause ends, or +inf
-- KEYS[10]  guard          none    {queue}:guard          never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]   cursor         ints                           whole numbers, a blank between them:
--             groups         0..999999999                 three zeros, then the last reply's cursor
--             busy           0..999999999999999999
--             paused         0..999999999
-- ARGV[2]   limit          int     1..1000                groups to count in this call
-- ARGV[3]   now            ms                             empty: the server's clock
-- COMPUTES  {queue}:items:<group>
-- REPLY     [cursor, waiting, groups, busy, paused, oldest, leased, ...]
--             then delayed, dead, due, expiry, done, failed, buried, trimmed, pause; cursor: empty when done; waiting:
--             items that this call counted; oldest: ms that a group has waited, or -1; due: batches expired or due by now;
--             expiry: ms of the first deadline, or -1; pause: "<until or 0> <reason>" while the queue is paused, or empty
-- ERROR     BADARG                                        an argument is out of range
-- ERROR     LAYOUT                                        the queue's mark is not 2 buffer
-- REPLAY    yes                                           it only reads

local call = redis.call
local meta, groups, since, leases, delayed, dead, busy, paused, paused_groups = unpack(KEYS)
local cursor, limit, now = unpack(ARGV)
local rank, scan, pause_rank = string.match(cursor or '', '^(%d+) (%d+) (%d+)$')
if #KEYS ~= 10 or #ARGV ~= 3
  or not rank or #rank > 9 or #scan > 18 or #pause_rank > 9 or #limit > 4 or not string.find(limit, '^[1-9]%d*$')
  or tonumber(limit) > 1000 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': stats takes 10 keys, "0 0 0" or the last cursor, 1..1000, ms since 1970 or nothing')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
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

-- The groups that may be chosen have their lengths in the index; then come those that are busy, or paused and not busy.
local queue, waiting, following = string.sub(meta, 1, -5), 0, ''
if scan == '0' and pause_rank == '0' then
  local lengths = call('ZRANGE', groups, rank, string.format('%d', rank + limit - 1), 'WITHSCORES')
  for i = 2, #lengths, 2 do
    waiting = waiting + lengths[i]
  end
  rank = rank + limit
end
local function count(names, step)
  for i = 1, #names, step do
    if step == 2 or call('HEXISTS', busy, names[i]) == 0 then
      waiting = waiting + call('LLEN', queue .. 'items:' .. names[i])
    end
  end
end
if tonumber(rank) < call('ZCARD', groups) then
  following = string.format('%d 0 0', rank)
elseif call('EXISTS', busy, paused_groups) > 0 then
  local page = { '0', {} }
  if pause_rank == '0' then
    page = call('HSCAN', busy, scan, 'COUNT', limit)
    count(page[2], 2)
  end
  if page[1] ~= '0' then
    following = string.format('%d %s 0', rank, page[1])
  else
    count(call('ZRANGE', paused_groups, pause_rank, string.format('%d', pause_rank + limit - 1)), 1)
    pause_rank = pause_rank + limit
    following = pause_rank < call('ZCARD', paused_groups) and string.format('%d 0 %d', rank, pause_rank) or ''
  end
end

local oldest, expiry = call('ZRANGE', since, '0', '0', 'WITHSCORES')[2], call('ZRANGE', leases, '0', '0', 'WITHSCORES')[2]
local due = call('ZCOUNT', leases, '-inf', now) + call('ZCOUNT', delayed, '-inf', now)
local totals = call('HMGET', meta, 'done', 'failed', 'buried', 'trimmed')
for i = 1, 4 do
  totals[i] = tonumber(totals[i] or 0)
end
return {
  following, waiting, call('ZCARD', groups), call('HLEN', busy), call('ZCARD', paused_groups),
  oldest and math.max(0, now - oldest) or -1, call('ZCARD', leases), call('ZCARD', delayed), call('ZCARD', dead),
  due, expiry and tonumber(expiry) or -1, totals[1], totals[2], totals[3], totals[4], stopped and pause or '',
}
