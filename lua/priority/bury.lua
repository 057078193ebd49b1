--!df flags=allow-undeclared-keys
-- priority/bury: a permanent failure: the members of a lease are dead now, except those that were pushed meanwhile
--
-- KEYS[1]  meta      hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]  leases    zset    {queue}:leases      lease id -> ms at which it runs out
-- KEYS[3]  held      set     {queue}:held        members of all leases
-- KEYS[4]  dead      zset    {queue}:dead        member -> ms at which it was buried
-- KEYS[5]  lease     list    {queue}:lease:<id>  holder, then member and score of each
-- KEYS[6]  ended     string  {queue}:ended:<id>  how the lease of that id ended
-- ARGV[1]  id        string  not empty           the lease's
-- ARGV[2]  options   ints                        whole numbers, a blank between them:
--            max_dead  0..999999999              dead members to keep, 0: all
--            window    0..999999999              ms that the answer is remembered, 0: not at all
-- ARGV[3]  reason    string                      why; its first 1000 bytes are kept, empty: the one that is there stays
-- ARGV[4]  now       ms                          empty: the server's clock
-- COMPUTES {queue}:ready, {queue}:delayed, {queue}:again, {queue}:rows, {queue}:payloads, {queue}:wake
-- REPLY    buried                                how many members are dead
-- ERROR    BADARG                                an argument is out of range
-- ERROR    LAYOUT                                the queue's mark is not 2 fifo or 2 score
-- ERROR    LEASELOST                             a reserve found that it ran out, or it was settled, buried or purged
-- REPLAY   lease                                 the same answer; after an ack or a release: LEASELOST

local call = redis.call
local meta, leases, held, dead, lease, ended = unpack(KEYS)
local id, options, reason, now = unpack(ARGV)
local max_dead, window = string.match(options or '', '^(%d+) (%d+)$')
if #KEYS ~= 6 or #ARGV ~= 4
  or id == '' or not max_dead or #max_dead > 9 or #window > 9 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': bury takes 6 keys, the id of a lease, "max_dead window", a text, ms since 1970 or nothing')
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
local verb, queue = 'bury', string.sub(meta, 1, -5)
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
local again, rows, wake = queue .. 'again', queue .. 'rows', queue .. 'wake'
local delayed, parked, deaths, new = queue .. 'delayed', {}, {}, {}
local noted, known = call('HMGET', again, unpack(members)), call('HMGET', rows, unpack(members))
reason = string.sub(reason, 1, 1000)
for i, member in ipairs(members) do
  local attempts, earlier = string.match(known[i] or '', '^%S+ (%d+) (.*)$')
  if not noted[i] then
    deaths[#deaths + 1], deaths[#deaths + 2] = now, member
    local why = reason == '' and earlier or reason
    new[#new + 1], new[#new + 2] = member, list[2 * i] .. ' ' .. (attempts or 0) + 1 .. ' ' .. why
  elseif noted[i] ~= 'removed' then
    local score, at = string.match(noted[i], '^(%S+) (%S+)') -- what was asked for meanwhile lives on alone
    parked[#parked + 1], parked[#parked + 2] = at, member
    new[#new + 1], new[#new + 2] = member, score .. ' 0 '
  end
end
local buried, tokens = #deaths / 2, call('LLEN', wake)
call('ZCARD', delayed)
call('ZCARD', dead)
call('SCARD', held)
call('HLEN', queue .. 'payloads')

-- idiom: held
if call('ZREM', leases, id) == 0 then -- what frees comes first, so a full server takes the rest
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
call('SREM', held, unpack(members))
call('UNLINK', lease)
call('HDEL', again, unpack(members))
spread(rows, new)
for _, write in ipairs({ { 'HSET', rows, new }, { 'ZADD', delayed, parked } }) do
  if #write[3] > 0 then
    call(write[1], write[2], unpack(write[3]))
  end
end
if #parked > 0 and tokens == 0 then
  call('LPUSH', wake, '1')
end
-- idiom: bury members
if #deaths > 0 then
  call('ZADD', dead, unpack(deaths))
  redis.pcall('HINCRBY', meta, 'buried', string.format('%d', #deaths / 2))
  -- Beyond max_dead the oldest dead letters go, at most ten a call more than came.
  local over = max_dead == '0' and 0 or math.min(#deaths / 2 + 10, call('ZCARD', dead) - max_dead)
  if over > 0 then
    local oldest = call('ZRANGE', dead, '0', string.format('%d', over - 1))
    call('ZREM', dead, unpack(oldest))
    call('HDEL', queue .. 'rows', unpack(oldest))
    call('HDEL', queue .. 'payloads', unpack(oldest))
    redis.pcall('HINCRBY', meta, 'trimmed', string.format('%d', over))
  end
end
-- end
-- idiom: priority drained
if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
end
-- end
if tonumber(window) > 0 then
  call('SET', ended, 'bury ' .. buried, 'PX', window)
end
return buried
