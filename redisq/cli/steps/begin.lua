-- Begin an import, or find that it had begun.
--
-- KEYS   the import's progress, meta, paused; then those that exist if the queue holds anything
-- ARGV   1 to merge with what is there, else 0; how many lines must have been restored for it to begin anew, or nothing;
--        the progress to begin with; the queue's mark; the value of paused, and its ms to live or 0; sequence;
--        then names and values of counters, which are added
-- Reply  the progress
-- Error  NOTEMPTY, LAYOUT

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
if merge == '0' and tonumber(sequence) > tonumber(call('HGET', meta, 'sequence') or 0) then
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
