--!df flags=allow-undeclared-keys
-- priority/release: give the members of a lease back
--
-- KEYS[1]  meta     hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]  leases   zset    {queue}:leases      lease id -> ms at which it runs out
-- KEYS[3]  held     set     {queue}:held        members of all leases
-- KEYS[4]  delayed  zset    {queue}:delayed     member -> ms when it is due
-- KEYS[5]  lease    list    {queue}:lease:<id>  holder, then member and score of each
-- KEYS[6]  ended    string  {queue}:ended:<id>  how the lease of that id ended
-- ARGV[1]  id       string  not empty           the lease's
-- ARGV[2]  options  ints                        whole numbers, a blank between them:
--            delay    0..99999999999            ms until they are due again
--            window   0..999999999              ms that the answer is remembered, 0: not at all
-- ARGV[3]  attempt  enum    count | forget      forget: this hand-over is no attempt
-- ARGV[4]  reason   string                      why; its first 1000 bytes are kept, empty: the one that is there stays
-- ARGV[5]  now      ms                          empty: the server's clock
-- COMPUTES {queue}:ready, {queue}:dead, {queue}:again, {queue}:rows, {queue}:wake
-- REPLY    back                                 how many members are given back: all but those removed meanwhile
-- ERROR    BADARG                               an argument is out of range
-- ERROR    LAYOUT                               the queue's mark is not 2 fifo or 2 score
-- ERROR    LEASELOST                            a reserve found that it ran out, or it was settled, buried or purged
-- REPLAY   lease                                the same answer; after an ack: LEASELOST

local call = redis.call
local meta, leases, held, delayed, lease, ended = unpack(KEYS)
local id, options, attempt, reason, now = unpack(ARGV)
local delay, window = string.match(options or '', '^(%d+) (%d+)$')
if #KEYS ~= 6 or #ARGV ~= 5
  or id == '' or not delay or #delay > 11 or #window > 9 or attempt ~= 'count' and attempt ~= 'forget'
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': release takes 6 keys, the id of a lease, "delay window", count or forget, a text, ms since 1970 or nothing')
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
local verb, queue = 'release', string.sub(meta, 1, -5)
-- idiom: ended
local before = call('GET', ended)
if before then
  local count = string.match(before, '^' .. verb .. ' (%d+)$')
  return tonumber(count) or redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
-- idiom: lease members
local list, members = call('LRANGE', lease, '1', '-1'), {}
for i = 1, #list / 2 do
  members[i] = list[2 * i - 1]
end
if #members == 0 then
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
-- idiom: spread
-- A small hash is searched field by field, which for many of them costs most of all: a long field makes it a table.
local function spread(key, values)
  if #values > 64 and call('HSETNX', key, string.rep('-', 65), '') == 1 then
    call('HSET', key, values[1], values[2]) -- a hash without any field would be gone, and small again
    call('HDEL', key, string.rep('-', 65))
  end
end
-- end
-- idiom: merge
-- A member of a lease comes back. If it was pushed meanwhile it was asked for anew: no attempts, and the lower score and
-- the earlier time of the two, or exactly what that push said.
local function merge(score, due, attempts, note)
  local asked, asked_due, how = string.match(note or '', '^(%S+) (%S+) (%a+)$')
  if not how then
    return score, due, attempts
  end
  if how == 'min' and tonumber(score) < tonumber(asked) then
    asked = score
  end
  if how == 'min' and tonumber(due) < tonumber(asked_due) then
    asked_due = due
  end
  return asked, asked_due, '0'
end
-- end
local again, rows, wake = queue .. 'again', queue .. 'rows', queue .. 'wake'
local due, counted, tokens = string.format('%d', now + delay), attempt == 'count' and 1 or 0, call('LLEN', wake)
call('ZCARD', delayed)
call('SCARD', held)
call('HLEN', again)
call('HLEN', rows)
reason = string.sub(reason, 1, 1000)

-- idiom: held
if call('ZREM', leases, id) == 0 then -- what frees comes first, so a full server takes the rest
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
call('UNLINK', lease)
-- idiom: returning
-- Members of a lease come back, merged with what was pushed meanwhile; those that were removed meanwhile are forgotten.
local noted, known = call('HMGET', again, unpack(members)), call('HMGET', rows, unpack(members))
local parked, new = {}, {}
for i, member in ipairs(members) do
  local attempts, earlier = string.match(known[i] or '', '^%S+ (%d+) (.*)$')
  local score, at, tried = merge(list[2 * i], due, (attempts or 0) + counted, noted[i])
  if noted[i] ~= 'removed' then
    parked[#parked + 1], parked[#parked + 2] = at, member
    new[#new + 1], new[#new + 2] = member, score .. ' ' .. tried .. ' ' .. (reason == '' and earlier or reason)
  end
end
call('SREM', held, unpack(members))
call('HDEL', again, unpack(members))
if #parked > 0 then
  spread(rows, new)
  call('ZADD', delayed, unpack(parked))
  call('HSET', rows, unpack(new))
end
-- end
local back = #parked / 2
if back > 0 and tokens == 0 then -- a client that waits is to hear the new time
  call('LPUSH', wake, '1')
end
if back * counted > 0 then
  redis.pcall('HINCRBY', meta, 'failed', string.format('%d', back))
end
if back == 0 then
  -- idiom: priority drained
  if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
    call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  end
  -- end
end
if tonumber(window) > 0 then
  call('SET', ended, 'release ' .. back, 'PX', window)
end
return back
