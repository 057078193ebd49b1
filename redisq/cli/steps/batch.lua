-- steps/batch: restore a delayed or dead batch of a buffer; one whose id is there already stays as it is
--
-- KEYS[1]  progress  string  {queue}:once:import-<file>  how many lines are restored, after "merge" or not
-- KEYS[2]  meta      hash    {queue}:meta                the queue's mark and counters
-- KEYS[3]  groups    zset    {queue}:groups              group -> waiting length; the groups that may be chosen
-- KEYS[4]  since     zset    {queue}:since               the same groups -> ms since when they wait
-- KEYS[5]  index     zset    {queue}:<state>             batch id -> ms: delayed or dead
-- KEYS[6]  batch     list    {queue}:batch:<id>          group, attempts, holder, reason, then the items, oldest first
-- KEYS[7]  busy      hash    {queue}:busy                group -> the batch that it waits for
-- KEYS[8]  wake      list    {queue}:wake                a wake-up for blocked clients
-- ARGV[1]  from      string                              the progress at which this step begins
-- ARGV[2]  to        string                              the progress to which it leads
-- ARGV[3]  id        string                              the batch's id
-- ARGV[4]  time      ms                                  when it is due, or died
-- ARGV[5]  waits     enum    0 | 1                       1: its group waits for it
-- ARGV[6+] value     bytes                               what its list holds, the group first
-- REPLY    progress                                      `to`, or where the import is: then nothing has been done
-- REPLAY   once                                          it begins at one progress, and ends that

local call = redis.call
local progress, meta, groups, since, index, batch, busy, wake = unpack(KEYS)
local from, to, id, time, waits, group = unpack(ARGV, 1, 6)
local at = call('GET', progress)
if at ~= from then
  return at
end
call('ZCARD', groups)
call('ZCARD', since)
call('ZCARD', index)
call('HLEN', busy)
local tokens = call('LLEN', wake)
if call('EXISTS', batch) == 0 then
  for i = 6, #ARGV, 1000 do
    call('RPUSH', batch, unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
  call('ZADD', index, time, id)
  if waits == '1' and call('HSETNX', busy, group, id) == 1 then
    call('ZREM', groups, group)
    call('ZREM', since, group)
  end
  call('PERSIST', meta)
  if tokens == 0 then
    call('LPUSH', wake, '1')
  end
end
call('SET', progress, to, 'PX', '31536000000') -- a year
return to
