--!df flags=allow-undeclared-keys
-- buffer/reserve: lease the batch or group that is due first, else the longest group
--
-- KEYS[1]  meta          hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]  groups        zset    {queue}:groups      group -> waiting length; the groups that may be chosen
-- KEYS[3]  since         zset    {queue}:since       the same groups -> ms since when they wait
-- KEYS[4]  leases        zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[5]  batch         list    {queue}:batch:<id>  group, attempts, holder, reason, item, ...
-- KEYS[6]  paused        string  {queue}:paused      <until or 0> <reason>
-- KEYS[7]  ended         string  {queue}:ended:<id>  how the lease of that id ended
-- KEYS[8]  wake          list    {queue}:wake        a wake-up for blocked clients
-- ARGV[1]  id            string  not empty           new for each reserve: it names the batch and its lease
-- ARGV[2]  options       ints                        whole numbers, a blank between them:
--            size          1..3000                   items at most; a batch that comes back comes whole
--            lease         1..99999999999            ms
--            min_size      1..5000                   items that a group needs before it is handed out
--            max_wait      0..99999999999            ms after which it is handed out at any length, 0: never
--            max_attempts  0..999999999              hand-overs after which a batch is dead, 0: never
--            max_dead      0..999999999              dead letters to keep, in batches, 0: all
--            max_bytes     0..99999999999            bytes at most, but at least one item, 0: any number
--            ordered       0..1                      1: no other batch of the group until this one is done or dead
--            isolate       0..1                      1: a batch that has used its attempts is split, not buried
--            window        0..999999999              ms that the end of a lease is remembered, 0: not at all
-- ARGV[3]  holder        string                      who holds the lease, for people
-- ARGV[4]  now           ms                          empty: the server's clock
-- ARGV[5+] rates         pairs   0..50               limit and per, 1..99999999999: at most limit batches in any per ms
-- COMPUTES {queue}:items:<group>, {queue}:delayed, {queue}:dead, {queue}:batch:<id>, {queue}:busy, {queue}:paused_groups
-- COMPUTES {queue}:grants, {queue}:ended:<id>
-- REPLY    [batch, deadline, group, attempts, reason, [item, ...]]  attempts: this one included; reason: why it came back
--          [buried, id, group, attempts, reason]     it has used its attempts: ask again at once
--          [none, retry]                             ask again after a wake-up, or in retry ms at the latest
--          [ended]                                   the lease of this id is over: ask again with a new one
-- ERROR    BADARG                                    an argument is out of range
-- ERROR    LAYOUT                                    the queue's mark is not 2 buffer
-- REPLAY   lease                                     the same batch while it is held, then ended; a burial stands

local call, format, first_rate, cost = redis.call, string.format, 5, 1
local meta, groups, since, leases, batch, paused, ended, wake = unpack(KEYS)
local id, options, holder, now = unpack(ARGV, 1, 4)
local size, lease, min_size, max_wait, max_attempts, max_dead, max_bytes, ordered, isolate, window =
  string.match(options or '', '^([1-9]%d*) ([1-9]%d*) ([1-9]%d*) (%d+) (%d+) (%d+) (%d+) ([01]) ([01]) (%d+)$')
if #KEYS ~= 8 or #ARGV < 4 or #ARGV > 104 or #ARGV % 2 > 0 or id == '' or not size or tonumber(size) > 3000
  or #lease > 11 or tonumber(min_size) > 5000 or #max_wait > 11 or #max_attempts > 9 or #max_dead > 9
  or #max_bytes > 11 or #window > 9 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 4)), 1, 160)
    .. ': reserve takes 8 keys, a new id, the ten numbers of the header, a text, ms since 1970 or nothing, rates')
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
local queue = string.sub(meta, 1, -5)
local delayed, dead, paused_groups = queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups'

-- Usually none of these is there, and one look says so.
local unusual = call('EXISTS', batch, ended, paused, paused_groups, delayed) > 0
local special = unusual and call('EXISTS', batch, ended, paused, paused_groups) > 0
if special then
  local deadline = call('ZSCORE', leases, id)
  if deadline then -- the reply was lost and the call is sent again: the same batch, and never a second one
    local header = call('LRANGE', batch, '0', '3')
    return { 'batch', tonumber(deadline), header[1], tonumber(header[2]), header[4], call('LRANGE', batch, '4', '-1') }
  elseif call('EXISTS', batch, ended) > 0 then
    return { 'ended' }
  end
  -- idiom: paused
  local pause = call('GET', paused)
  local ends = pause and tonumber(string.match(pause, '^%d+'))
  local stopped = ends and (ends == 0 or ends > tonumber(now))
  -- end
  if stopped then
    return { 'none', math.min(lease, ends > 0 and ends - now or math.huge) }
  end
end
-- idiom: grants
local grants, total, longest, earliest = queue .. 'grants', 0, 0, nil
for i = first_rate, #ARGV, 2 do
  local limit, per = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if not limit or not per or string.find(ARGV[i] .. ARGV[i + 1], '%D') or limit < 1 or per < 1
    or limit > 99999999999 or per > 99999999999 then
    return redis.error_reply('BADARG rates has ' .. string.sub(ARGV[i] .. ' ' .. ARGV[i + 1], 1, 32)
      .. ': give pairs of 1..99999999999')
  end
  longest = per > longest and per or longest
end
-- Each grant says what had been granted before it: what a span has seen is the total less what its first grant says.
local newest = #ARGV >= first_rate and call('ZRANGE', grants, '-1', '-1')[1]
if newest then
  local before, last, at = string.match(newest, '^(%d+) (%d+) (%d+)$')
  total = before + last
  if at - now > 0 then -- the clock was set back: what is dated later counts as granted now
    local later = call('ZRANGEBYSCORE', grants, '(' .. now, '+inf', 'LIMIT', '0', '1')[1]
    before = string.match(later, '^%d+')
    call('ZREM', grants, '') -- it frees nothing, but after a write that could a full server takes the next ones
    call('ZADD', grants, now, before .. string.format(' %d ', total - before) .. now)
    call('ZREMRANGEBYSCORE', grants, '(' .. now, '+inf') -- last, so that the key keeps its TTL
  end
  earliest = call('ZRANGE', grants, '0', '0')[1]
end
-- end
-- idiom: rates
local granted, retry, stale = cost, 0, false
for i = first_rate, #ARGV, 2 do
  local limit, per, first = ARGV[i], ARGV[i + 1], earliest or ''
  local before, at = string.match(first, '^(%d+) %d+ (%d+)$')
  if at and at + per - now < 0 then
    stale, first = true, call('ZRANGEBYSCORE', grants, string.format('%d', now - per), '+inf', 'LIMIT', '0', '1')[1] or ''
    before, at = string.match(first, '^(%d+) %d+ (%d+)$')
  end
  local free = limit - total + (before or total)
  if free < 0 then -- the clock or the limit was set back: find the last grant that has to leave the span
    free = 0
    local low, high = call('ZRANK', grants, first), call('ZCARD', grants) - 1
    while low < high do
      local middle = string.format('%d', math.ceil((low + high) / 2))
      local one, its_time = string.match(call('ZRANGE', grants, middle, middle)[1], '^(%d+) %d+ (%d+)$')
      if limit - total + one > 0 then high = middle - 1 else low, at = tonumber(middle), its_time end
    end
  end
  if free <= granted and free < cost then
    retry, granted = math.max(free == granted and retry or 0, (at or now) + per + 1 - now), free
  end
end
-- end
if granted == 0 then
  return { 'none', retry }
end
local tokens = call('LLEN', wake)
if special then
  -- idiom: ended pauses
  -- Groups whose pause has ended may be chosen again, ten a call; their pauses may have been all that kept the queue.
  local over, lengths = call('ZRANGEBYSCORE', queue .. 'paused_groups', '-inf', now, 'LIMIT', '0', '10'), {}
  for i, one in ipairs(over) do -- a key of another type stops it here, before it has written anything
    for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead' }) do
      call('ZCARD', queue .. key)
    end
    lengths[i] = call('HEXISTS', queue .. 'busy', one) == 0 and call('LLEN', queue .. 'items:' .. one) or 0
  end
  for i, one in ipairs(over) do
    call('ZREM', queue .. 'paused_groups', one)
    if lengths[i] > 0 then
      call('ZADD', queue .. 'groups', string.format('%d', lengths[i]), one)
      call('ZADD', queue .. 'since', 'NX', now, one)
      tokens = tokens > 0 and tokens or call('LPUSH', queue .. 'wake', '1')
    end
  end
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
end

-- What is due goes first, the earliest of all: expired leases, delayed batches, groups that have waited max_wait.
-- Usually nothing is due, and counts say so more cheaply than names and times.
local aged, due = max_wait ~= '0' and format('%d', now - max_wait), call('ZCOUNT', leases, '-inf', now)
due = due + (unusual and call('ZCOUNT', delayed, '-inf', now) or 0) + (aged and call('ZCOUNT', since, '-inf', aged) or 0)
-- Never later than a lease ahead: whoever takes a batch meanwhile may crash.
local from, name, at = groups, due == 0 and call('ZRANGE', groups, '-1', '-1')[1], now + lease
if name and min_size ~= '1' and call('LLEN', queue .. 'items:' .. name) < tonumber(min_size) then
  name = nil
end
if not name then
  for _, index in ipairs({ leases, delayed, since, paused_groups }) do
    local first = (index ~= since or aged) and call('ZRANGE', index, '0', '0', 'WITHSCORES') or {}
    local time = first[2] and first[2] + (index == since and max_wait or 0)
    if time and time < at then
      from, name, at = index, first[1], time
    end
  end
  if at > tonumber(now) or from == paused_groups then
    return { 'none', math.max(0, at - now) }
  end
end

local again = from == leases or from == delayed -- a batch that was handed out before; else waiting items
local group, source, attempts, reason, busy_with = name, queue .. 'items:' .. name, 0, '', nil
if again then
  source = queue .. 'batch:' .. name
  call('EXISTS', queue .. 'ended:' .. name) -- written at the end: who may not, is stopped here
  local header = call('LRANGE', source, '0', '3')
  group, attempts, busy_with = header[1] or '', tonumber(header[2]) or 0, call('HGET', queue .. 'busy', header[1] or '')
  reason = from == leases and 'lease ran out: ' .. (header[3] or '') or header[4] or ''
end
local count = call('LLEN', source) - (again and 4 or 0)
if due > 0 or ordered == '1' then
  -- idiom: types
  -- A script is not rolled back: a key of another type must stop it here, before it has written anything.
  for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead', 'paused_groups' }) do
    call('ZCARD', queue .. key)
  end
  call('HLEN', queue .. 'busy')
  call('LLEN', queue .. 'items:' .. group)
  -- end
else
  call('ZCARD', since)
end
if count < 1 then -- the server evicted the list
  call('ZREM', again and from or groups, name)
  call('ZREM', since, name)
  -- idiom: buffer drained
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
  return { 'none', 0 }
end

local spent, items, last = again and max_attempts ~= '0' and attempts >= tonumber(max_attempts), nil, '-1'
if spent and (isolate == '0' or count == 1) then
  local how = 'lost'
  -- idiom: bury batch
  local over = max_dead == '0' and 0 or math.min(10, call('ZCARD', dead) + 1 - max_dead)
  local oldest, trimmed = over > 0 and call('ZRANGE', dead, '0', string.format('%d', over - 1)) or {}, 0
  for i, earlier in ipairs(oldest) do
    oldest[i] = queue .. 'batch:' .. earlier
    trimmed = trimmed + math.max(0, call('LLEN', oldest[i]) - 4)
  end
  call('ZREM', from, name) -- it frees, so a full server takes the rest
  if over > 0 then
    call('ZREMRANGEBYRANK', dead, '0', string.format('%d', over - 1))
    call('UNLINK', unpack(oldest))
    redis.pcall('HINCRBY', meta, 'trimmed', string.format('%d', trimmed))
  end
  call('ZADD', dead, now, name)
  call('LSET', source, '3', reason)
  redis.pcall('HINCRBY', meta, 'buried', string.format('%d', count))
  if tonumber(window) > 0 then
    call('SET', queue .. 'ended:' .. name, how, 'NX', 'PX', window)
  end
  if call('HGET', queue .. 'busy', group) == name then
    call('HDEL', queue .. 'busy', group)
  end
  -- end
  -- idiom: offer
  -- A group may be chosen while it has items and is neither busy nor paused.
  local length = call('LLEN', queue .. 'items:' .. group)
  if length > 0 and call('HEXISTS', queue .. 'busy', group) == 0
    and not call('ZSCORE', queue .. 'paused_groups', group) then
    call('ZADD', queue .. 'groups', string.format('%d', length), group)
    call('ZADD', queue .. 'since', 'NX', now, group)
    if tokens == 0 then
      tokens = call('LPUSH', queue .. 'wake', '1')
    end
  end
  -- end
  if from == leases then redis.pcall('HINCRBY', meta, 'failed', format('%d', count)) end -- a crash counts too
  return { 'buried', name, group, attempts, reason }
end
-- A group that is busy with another batch stays so: this one was handed out before the buffer was ordered.
if busy_with == name or ordered == '1' and not busy_with then
  call('ZREM', groups, group)
  call('ZREM', since, group)
  call('HSET', queue .. 'busy', group, id)
end
if again then
  call('ZREM', from, name)
  if from == leases then redis.pcall('HINCRBY', meta, 'failed', format('%d', count)) end
  if spent then -- one item may be to blame: half of them get a last attempt, the others wait as if never handed out
    local half = math.ceil(count / 2)
    local back, first = call('LRANGE', source, format('%d', half + 4), '-1'), 1
    last = format('%d', half + 3)
    -- idiom: put back
    -- In pieces from the last item on, so that the first one is the next to be taken.
    for i = #back, first, -1000 do
      local piece = {}
      for j = i, math.max(first, i - 999), -1 do
        piece[i - j + 1] = back[j]
      end
      call('LPUSH', queue .. 'items:' .. group, unpack(piece))
    end
    -- end
    -- idiom: offer
    -- A group may be chosen while it has items and is neither busy nor paused.
    local length = call('LLEN', queue .. 'items:' .. group)
    if length > 0 and call('HEXISTS', queue .. 'busy', group) == 0
      and not call('ZSCORE', queue .. 'paused_groups', group) then
      call('ZADD', queue .. 'groups', string.format('%d', length), group)
      call('ZADD', queue .. 'since', 'NX', now, group)
      if tokens == 0 then
        tokens = call('LPUSH', queue .. 'wake', '1')
      end
    end
    -- end
  end
end
local take, bytes, most, some, first, read = again and count or math.min(size, count), 0, tonumber(max_bytes), nil, 0, 0
items = most > 0 and not again and {} or nil
for i = 0, items and take - 1 or -1 do
  if i == read then -- they may be large: the more have fitted, the more are read
    first, read = i, math.min(2 * i + 10, take)
    some = call('LRANGE', source, format('%d', first), format('%d', read - 1))
  end
  bytes = bytes + #some[i - first + 1]
  if bytes > most and i > 0 then take = i break end
  items[i + 1] = some[i - first + 1]
end
attempts = spent and tonumber(max_attempts) or attempts + 1
if take == count then -- the list itself becomes the batch, which spares each item a second way through Lua
  call('RENAME', source, batch) -- and whoever held it under an old id finds nothing there
  if again then call('LTRIM', batch, '4', last) end
  call('LPUSH', batch, reason, holder, format('%d', attempts), group)
  items = items or call('LRANGE', batch, '4', '-1')
else
  if items then call('LTRIM', source, format('%d', take), '-1') else items = call('LPOP', source, size) end
  call('RPUSH', batch, group, '1', holder, '', unpack(items, 1, math.min(take, 1000)))
  for i = 1001, take, 1000 do
    call('RPUSH', batch, unpack(items, i, math.min(i + 999, take)))
  end
end
if again and tonumber(window) > 0 then -- nor does a late repeat of that reserve get another batch
  call('SET', queue .. 'ended:' .. name, 'lost', 'NX', 'PX', window)
elseif ordered == '0' and take < count then
  call('ZADD', groups, format('%d', count - take), group)
  call('ZADD', since, now, group)
elseif ordered == '0' and not again then
  call('ZREM', groups, group)
  call('ZREM', since, group)
end
local deadline, amount = now + lease, '1'
call('ZADD', leases, format('%d', deadline), id)
-- idiom: charge
if longest > 0 then
  call('ZADD', grants, now, string.format('%016d ', total) .. amount .. ' ' .. now)
  if stale then
    local gone = call('ZCOUNT', grants, '-inf', string.format('(%d', now - longest))
    if gone > 0 then
      call('ZREMRANGEBYRANK', grants, '0', string.format('%d', math.min(gone, 100) - 1))
    end
  end
  call('PEXPIRE', grants, string.format('%d', longest + 1000))
end
-- end
-- A wake-up wakes one client, but may stand for several events: pass it on if there is more to take, now or later.
if tokens == 0 and (due > 1 or call('EXISTS', groups, delayed) > 0) then
  call('LPUSH', wake, '1')
end
return { 'batch', deadline, group, attempts, reason, items }
