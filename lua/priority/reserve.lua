--!df flags=allow-undeclared-keys
-- priority/reserve: lease the most urgent members
--
-- KEYS[1]  meta          hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]  ready         zset    {queue}:ready       member -> score, the lowest leaves first
-- KEYS[3]  leases        zset    {queue}:leases      lease id -> ms at which it runs out
-- KEYS[4]  held          set     {queue}:held        members of all leases
-- KEYS[5]  lease         list    {queue}:lease:<id>  holder, then member and score of each
-- KEYS[6]  ended         string  {queue}:ended:<id>  how the lease of that id ended
-- KEYS[7]  wake          list    {queue}:wake        a wake-up for blocked clients
-- ARGV[1]  order         enum    fifo | score        the order that the caller reads the scores by
-- ARGV[2]  id            string  not empty           new for each reserve: it becomes the lease's
-- ARGV[3]  options       ints                        whole numbers, a blank between them:
--            size          1..500                    members at most
--            lease         1..99999999999            ms
--            max_attempts  0..999999999              hand-overs after which a member is dead, 0: never
--            max_dead      0..999999999              dead members to keep, 0: all
--            max_bytes     0..99999999999            bytes of members and payloads, but at least one member, 0: any number
--            window        0..999999999              ms that the end of a lease is remembered, 0: not at all
-- ARGV[4]  holder        string                      who holds the lease, for people
-- ARGV[5]  now           ms                          empty: the server's clock
-- ARGV[6+] rates         pairs   0..50               limit and per, 1..99999999999: at most limit batches in any per ms
-- COMPUTES {queue}:delayed, {queue}:dead, {queue}:lease:<id>, {queue}:again, {queue}:rows, {queue}:payloads, {queue}:paused
-- COMPUTES {queue}:grants, {queue}:ended:<id>
-- REPLY    [batch, deadline, [member, score, ...], [row, ...], [payload, ...], [dead member, ...]]  lowest score first;
--            row: "score attempts reason", attempts: hand-overs before this one; row and payload: nil where there is none,
--            or the list is empty; dead: members that had used their attempts and were buried on the way
--          [none, retry, [dead member, ...]]         ask again after a wake-up, or in retry ms at the latest
--          [ended]                                   the lease of this id is over: ask again with a new one
-- ERROR    BADARG                                    an argument is out of range
-- ERROR    LAYOUT                                    the queue's mark is not 2 fifo or 2 score
-- ERROR    WRONGORDER                                the queue is kept in the other order
-- REPLAY   lease                                     the same batch while it is held, then ended; burials stand

local call, first_rate, cost = redis.call, 6, 1
local meta, ready, leases, held, lease, ended, wake = unpack(KEYS)
local order, id, options, holder, now = unpack(ARGV, 1, 5)
local size, term, max_attempts, max_dead, max_bytes, window =
  string.match(options or '', '^([1-9]%d*) ([1-9]%d*) (%d+) (%d+) (%d+) (%d+)$')
if #KEYS ~= 7 or #ARGV < 5 or #ARGV > 105 or #ARGV % 2 == 0
  or order ~= 'fifo' and order ~= 'score' or id == '' or not size or tonumber(size) > 500 or #term > 11
  or #max_attempts > 9 or #max_dead > 9 or #max_bytes > 11 or #window > 9
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 5)), 1, 160)
    .. ': reserve takes 7 keys, fifo or score, a new id, six numbers, a text, ms since 1970 or nothing, rates')
end
-- idiom: order
local mark = call('HGET', meta, 'queue')
local kept = mark or call('EXISTS', ready) == 1 and '2 score' -- a plain sorted set is taken as it is
if kept and kept ~= '2 ' .. order then
  local code = (kept == '2 fifo' or kept == '2 score') and 'WRONGORDER' or 'LAYOUT'
  return redis.error_reply(code .. ' this queue is marked ' .. string.sub(kept, 1, 32) .. ', the call is for 2 ' .. order)
end
-- end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue = string.sub(meta, 1, -5)
local delayed, dead, again = queue .. 'delayed', queue .. 'dead', queue .. 'again'
local rows, payloads, paused = queue .. 'rows', queue .. 'payloads', queue .. 'paused'
local special = call('EXISTS', lease, ended, rows, payloads, paused) > 0 -- what is delayed has a row

-- What is handed out, with what is known of it.
local function batch(deadline, taken, members, buried)
  local known = special and call('EXISTS', rows) == 1 and call('HMGET', rows, unpack(members)) or {}
  local loads = special and call('EXISTS', payloads) == 1 and call('HMGET', payloads, unpack(members)) or {}
  return { 'batch', deadline, taken, known, loads, buried }
end
local function members_of(list)
  local members = {}
  for i = 1, #list / 2 do
    members[i] = list[2 * i - 1]
  end
  return members
end

if special and call('EXISTS', lease, ended) > 0 then
  -- The reply was lost and the call is sent again: the same batch while it is held, and never a second one.
  local deadline, taken = call('ZSCORE', leases, id), call('LRANGE', lease, '1', '-1')
  return deadline and batch(tonumber(deadline), taken, members_of(taken), {}) or { 'ended' }
elseif special then
  -- idiom: paused
  local pause = call('GET', paused)
  local ends = pause and tonumber(string.match(pause, '^%d+'))
  local stopped = ends and (ends == 0 or ends > tonumber(now))
  -- end
  if stopped then
    return { 'none', math.min(term, ends > 0 and ends - now or math.huge), {} }
  end
  call('HLEN', rows)
  call('HLEN', payloads)
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
  return { 'none', retry, {} }
end
local tokens = call('LLEN', wake)
call('SCARD', held)

if call('ZCOUNT', leases, '-inf', now) > 0 then
  -- A script is not rolled back: a key of another type must stop it here, before it has written anything.
  call('ZCARD', ready)
  call('ZCARD', delayed)
  call('HLEN', again)
  call('HLEN', rows)
  -- Leases that ran out end, until a hundred members are found: these come back, due since then. The next call hands them
  -- out: one that did both would hold the server for too long.
  local ids, count, last = call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', '0', '100'), 0, 0
  for i, other in ipairs(ids) do
    count = count + math.floor(call('LLEN', queue .. 'lease:' .. other) / 2)
    call('EXISTS', queue .. 'ended:' .. other) -- written at the end: a client that may not is stopped here
    last = (i == 1 or count <= 100) and i or last
  end
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
  for n = 1, last do
    local other = queue .. 'lease:' .. ids[n]
    local list, due, counted = call('LRANGE', other, '1', '-1'), call('ZSCORE', leases, ids[n]), 1
    local reason, members = 'lease ran out: ' .. (call('LINDEX', other, '0') or ''), members_of(list)
    call('ZREM', leases, ids[n]) -- it frees, so a full server takes the rest
    call('UNLINK', other)
    if #members > 0 then
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
      redis.pcall('HINCRBY', meta, 'failed', string.format('%d', #parked / 2))
    end
    if tonumber(window) > 0 then
      call('SET', queue .. 'ended:' .. ids[n], 'lost', 'NX', 'PX', window)
    end
  end
  -- idiom: priority drained
  if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
    call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  end
  -- end
  return { 'none', 0, {} }
end
local dead_members = {}
if call('ZCOUNT', delayed, '-inf', now) > 0 then
  call('ZCARD', ready)
  call('ZCARD', dead)
  -- idiom: promote
  local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', '0', '100')
  local ripe, forgotten, buried, deaths = {}, {}, {}, {}
  for i, row in ipairs(#due > 0 and call('HMGET', rows, unpack(due)) or {}) do
    local score, attempts, reason = string.match(row or '0 0 ', '^(%S+) (%d+) (.*)$')
    if max_attempts ~= '0' and tonumber(attempts) >= tonumber(max_attempts) then
      buried[#buried + 1] = due[i]
      deaths[#deaths + 1], deaths[#deaths + 2] = now, due[i]
    else
      ripe[#ripe + 1], ripe[#ripe + 2] = score, due[i]
      forgotten[#forgotten + 1] = attempts == '0' and reason == '' and due[i] or nil
    end
  end
  for _, write in ipairs({ { 'ZREM', delayed, due }, { 'ZADD', ready, ripe }, { 'HDEL', rows, forgotten } }) do
    if #write[3] > 0 then
      call(write[1], write[2], unpack(write[3]))
    end
  end
  -- end
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
  dead_members = buried
end

local left, seen = tonumber(max_bytes), max_bytes ~= '0' and call('ZRANGE', ready, '0', string.format('%d', size - 1)) or {}
local sizes = #seen > 0 and call('HMGET', payloads, unpack(seen)) or {}
for i, member in ipairs(seen) do
  left = left - #member - #(sizes[i] or '')
  if left < 0 and i > 1 then
    size = string.format('%d', math.min(size, i - 1))
  end
end
local taken = call('ZPOPMIN', ready, size)
if #taken == 0 then
  local expiry, due = call('ZRANGE', leases, '0', '0', 'WITHSCORES')[2], call('ZRANGE', delayed, '0', '0', 'WITHSCORES')[2]
  local at = math.min(now + term, expiry or now + term, due or now + term) -- whoever takes one meanwhile may crash
  return { 'none', math.max(0, at - now), dead_members }
end
local deadline, amount, members = now + term, '1', members_of(taken)
if not mark then
  call('HSET', meta, 'queue', '2 ' .. order)
end
call('SADD', held, unpack(members))
call('RPUSH', lease, holder, unpack(taken))
call('ZADD', leases, string.format('%d', deadline), id)
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
if tokens == 0 and call('EXISTS', ready, delayed) > 0 then
  call('LPUSH', wake, '1')
end
return batch(deadline, taken, members, dead_members)
