-- steps/begin: begin an import, or find that it had begun
--
-- KEYS[1]  progress  string  {queue}:once:import-<file>  how many lines are restored, after "merge" or not
-- KEYS[2]  meta      hash    {queue}:meta                the queue's mark and counters
-- KEYS[3]  paused    string  {queue}:paused              until or 0, a blank, the reason
-- KEYS[4+] index     none    {queue}:<index>             those that exist if the queue holds anything
-- ARGV[1]  merge     enum    0 | 1                       1: go on though the queue holds something
-- ARGV[2]  again     string                              of a finished import: its lines, then it begins anew; or empty
-- ARGV[3]  first     string                              the progress to begin with
-- ARGV[4]  mark      enum    2 buffer | 2 fifo | 2 score
-- ARGV[5]  pause     bytes                               the value of paused, or empty; a pause that is there stays
-- ARGV[6]  ttl       int     0..                         ms until the pause ends, 0: never
-- ARGV[7]  sequence  int     0..                         the last place that was given, so that what is pushed from
--                                                        now on comes behind what is still to be restored
-- ARGV[8+] counter   string                              names and values, which are added
-- REPLY    progress                                      where the import is
-- ERROR    LAYOUT                                        the queue's mark is another
-- ERROR    NOTEMPTY                                      the queue holds something, and merge is 0
-- REPLAY   once                                          while progress is remembered: it alone is told

local call = redis.call
local progress, meta, paused = unpack(KEYS)
local merge, again, first, mark, pause, ttl, sequence = unpack(ARGV)
local at = call('GET', progress)
if at and string.match(at, '%d+$') ~= again then
  return at
end
local kept = call('HGET', meta, 'queue')
if kept and kept ~= mark then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(kept, 1, 32) .. ', the file is of ' .. mark)
end
local empty = call('EXISTS', unpack(KEYS, 4)) == 0
if not empty and merge == '0' then
  return redis.error_reply('NOTEMPTY')
end
pause = call('EXISTS', paused) == 0 and pause or '' -- one that is there stays

call('HSET', meta, 'queue', mark) -- first, because a full server refuses this
for i = 8, #ARGV, 2 do
  call('HINCRBY', meta, ARGV[i], ARGV[i + 1])
end
if tonumber(sequence) > tonumber(call('HGET', meta, 'sequence') or 0) then
  call('HSET', meta, 'sequence', sequence)
end
if empty then
  call('PEXPIRE', meta, '604800000') -- as in a queue that was emptied; what is restored ends that
end
if pause ~= '' and ttl == '0' then
  call('SET', paused, pause)
elseif pause ~= '' then
  call('SET', paused, pause, 'PX', ttl)
end
call('SET', progress, first, 'PX', '31536000000') -- a year
return first
