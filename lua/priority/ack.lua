--!df flags=allow-undeclared-keys
-- priority/ack: settle a lease; the members that failed are given back, the others are done
--
-- KEYS[1]   meta     hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]   leases   zset    {queue}:leases      lease id -> ms at which it runs out
-- KEYS[3]   held     set     {queue}:held        members of all leases
-- KEYS[4]   lease    list    {queue}:lease:<id>  holder, then member and score of each
-- KEYS[5]   ended    string  {queue}:ended:<id>  how the lease of that id ended
-- ARGV[1]   id       string  not empty           the lease's
-- ARGV[2]   options  ints                        whole numbers, a blank between them:
--             delay    0..99999999999            ms until the failed members are due again
--             window   0..999999999              ms that the answer is remembered, 0: not at all
-- ARGV[3]   now      ms                          empty: the server's clock
-- ARGV[4+]  failed   pairs   0..500              place of a member that failed, from 0, none twice, and why: 1000 bytes
-- COMPUTES  {queue}:ready, {queue}:delayed, {queue}:dead, {queue}:again, {queue}:rows, {queue}:payloads, {queue}:wake
-- REPLY     done                                 how many members are done
-- ERROR     BADARG                               an argument is out of range
-- ERROR     LAYOUT                               the queue's mark is not 2 fifo or 2 score
-- ERROR     LEASELOST                            a reserve found that it ran out, or it was settled, buried or purged
-- REPLAY    lease                                the same answer; after a release: LEASELOST

local call = redis.call
local meta, leases, held, lease, ended = unpack(KEYS)
local id, options, now = unpack(ARGV, 1, 3)
local delay, window = string.match(options or '', '^(%d+) (%d+)$')
if #KEYS ~= 5 or #ARGV < 3 or #ARGV > 1003 or #ARGV % 2 == 0
  or id == '' or not delay or #delay > 11 or #window > 9 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 3)), 1, 80)
    .. ': ack takes 5 keys, the id of a lease, "delay window", ms since 1970 or nothing, at most 500 pairs')
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
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
local verb, queue = 'ack', string.sub(meta, 1, -5)
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
local failed, failures = {}, (#ARGV - 3) / 2
for i = 4, #ARGV, 2 do
  local member = members[(string.find(ARGV[i], '^%d+$') and tonumber(ARGV[i]) or -1) + 1]
  if not member or failed[member] then
    return redis.error_reply('BADARG failed is ' .. string.sub(ARGV[i], 1, 32)
      .. ': give places from 0, none twice, below ' .. #members)
  end
  failed[member] = string.sub(ARGV[i + 1], 1, 1000)
end

-- Usually nothing failed, and nothing is known of the members but that they are leased.
local again, rows, payloads, wake = queue .. 'again', queue .. 'rows', queue .. 'payloads', queue .. 'wake'
local delayed, done, gone, parked, new, tokens = queue .. 'delayed', #members, members, {}, {}, 1
local special = failures > 0 or call('EXISTS', again, rows, payloads) > 0
if special then
  -- idiom: clock
  if now == '' then
    local time = call('TIME')
    now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
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
  local noted, known = call('HMGET', again, unpack(members)), call('HMGET', rows, unpack(members))
  local due = string.format('%d', now + delay)
  gone = {}
  for i, member in ipairs(members) do
    local score, at, attempts
    if noted[i] == 'removed' then
      done = done - 1
    elseif failed[member] then
      attempts = tonumber(string.match(known[i] or '', '^%S+ (%d+)') or 0) + 1
      score, at, attempts = merge(list[2 * i], due, attempts, noted[i])
      done = done - 1
    elseif noted[i] then
      score, at = string.match(noted[i], '^(%S+) (%S+)') -- what was asked for meanwhile, and nothing else
      attempts = '0'
    else
      gone[#gone + 1] = member
    end
    if at then
      parked[#parked + 1], parked[#parked + 2] = at, member
      new[#new + 1], new[#new + 2] = member, score .. ' ' .. attempts .. ' ' .. (failed[member] or '')
    end
  end
  tokens = call('LLEN', wake)
  call('ZCARD', delayed)
  call('HLEN', payloads)
end
call('SCARD', held)

-- idiom: held
if call('ZREM', leases, id) == 0 then -- what frees comes first, so a full server takes the rest
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
call('SREM', held, unpack(members))
call('UNLINK', lease)
if special then
  spread(rows, new)
  for _, write in ipairs({
    { 'HDEL', again, members }, { 'HDEL', rows, gone }, { 'HDEL', payloads, gone },
    { 'ZADD', delayed, parked }, { 'HSET', rows, new },
  }) do
    if #write[3] > 0 then
      call(write[1], write[2], unpack(write[3]))
    end
  end
  if #parked > 0 and tokens == 0 then
    call('LPUSH', wake, '1')
  end
  if failures > 0 then
    redis.pcall('HINCRBY', meta, 'failed', string.format('%d', failures))
  end
end
local text = string.format('%d', done)
if done > 0 then
  redis.pcall('HINCRBY', meta, 'done', text)
end
-- idiom: priority drained
if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
end
-- end
if tonumber(window) > 0 then
  call('SET', ended, 'ack ' .. text, 'PX', window)
end
return done
