--!df flags=allow-undeclared-keys
-- buffer/reserve: choose a group or a batch that is due, take it, charge the rates and lease it
--
-- KEYS[1]   groups        zset    {queue}:groups      group -> waiting length
-- KEYS[2]   since         zset    {queue}:since       group -> ms it became non-empty or was last served
-- KEYS[3]   leases        zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[4]   delayed       zset    {queue}:delayed     batch id -> ms when it is due again
-- KEYS[5]   dead          zset    {queue}:dead        batch id -> ms at which it was buried
-- KEYS[6]   grants        zset    {queue}:grants      "<granted before it> <granted>" -> ms of the grant
-- KEYS[7]   batch         list    {queue}:batch:<id>  group, attempts, item...
-- KEYS[8]   ended         string  {queue}:ended:<id>  how the lease of that id ended
-- KEYS[9]   wake          list    {queue}:wake        a token for who waits
-- KEYS[10]  guard         none    {queue}:guard       never exists: while a cluster moves the slot: TRYAGAIN
-- KEYS[11]  layout        string  {queue}:layout      the layout of these keys: 1, or absent
-- ARGV[1]   id            string  not empty           new for each reserve: it becomes the batch's id
-- ARGV[2]   size          int     1..10000            how many waiting items; a batch comes back whole
-- ARGV[3]   lease         int     1..315360000000     ms
-- ARGV[4]   min_size      int     1..10000            the longest group is taken from this length on
-- ARGV[5]   max_wait      int     0..315360000000     ms after which a group is due at any length, 0: never
-- ARGV[6]   max_attempts  int     0..1000000000       hand-overs after which a batch is buried, 0: never
-- ARGV[7]   window        int     0..604800000        ms that a lost lease is remembered
-- ARGV[8]   now           ms                          empty: the server's clock
-- ARGV[9+]  rate          pairs   limit per           none or more: at most limit batches in any span of per ms
-- COMPUTES  {queue}:items:<group>
-- COMPUTES  {queue}:batch:<id>
-- COMPUTES  {queue}:ended:<id>
-- REPLY     [retry, [id, group, attempts, ...], deadline, group, attempts, [item, ...]]  the batch; the first list names
--                                                     the batches buried on the way; retry is 0
--           [retry, [id, group, attempts, ...]]       nothing: ask again in retry ms, -1: when something is pushed
-- ERROR     BADARG                                    an argument is out of range
-- ERROR     LAYOUT                                    these keys are of another layout than this script
-- REPLAY    lease                                     the same id: the same batch while it is held, then nothing

local groups, since, leases, delayed, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local grants, batch, ended, wake, guard, layout = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local id, size, lease, min_size, max_wait = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local max_attempts, window, now = ARGV[6], ARGV[7], ARGV[8]

if #KEYS ~= 11 or #ARGV < 8 or #ARGV % 2 ~= 0 then
  return redis.error_reply('BADARG reserve takes 11 keys, 8 arguments and pairs of limit and per')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if id == '' then
  return redis.error_reply('BADARG id is empty, give each reserve a new one')
end
if not string.find(size, '^%d+$') or tonumber(size) < 1 or tonumber(size) > 10000 then
  return redis.error_reply('BADARG size is ' .. string.sub(size, 1, 32) .. ', give a whole number from 1 to 10000')
end
if not string.find(lease, '^%d+$') or tonumber(lease) < 1 or tonumber(lease) > 315360000000 then
  return redis.error_reply('BADARG lease is ' .. string.sub(lease, 1, 32) .. ', give whole ms from 1 to 315360000000')
end
if not string.find(min_size, '^%d+$') or tonumber(min_size) < 1 or tonumber(min_size) > 10000 then
  return redis.error_reply('BADARG min_size is ' .. string.sub(min_size, 1, 32) .. ', give a whole number from 1 to 10000')
end
if not string.find(max_wait, '^%d+$') or tonumber(max_wait) > 315360000000 then
  return redis.error_reply('BADARG max_wait is ' .. string.sub(max_wait, 1, 32) .. ', give whole ms from 0 to 315360000000')
end
if not string.find(max_attempts, '^%d+$') or tonumber(max_attempts) > 1000000000 then
  return redis.error_reply('BADARG max_attempts is ' .. string.sub(max_attempts, 1, 32) .. ', give 0..1000000000')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end
for i = 9, #ARGV do
  if not string.find(ARGV[i], '^%d+$') or tonumber(ARGV[i]) < 1 or tonumber(ARGV[i]) > 315360000000 then
    return redis.error_reply('BADARG rate is ' .. string.sub(ARGV[i], 1, 32) .. ', give limit and per as 1..315360000000')
  end
end
-- idiom: clock
if now == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
elseif string.find(now, '^%d+$') and #now < 16 then
  now = tonumber(now)
else
  return redis.error_reply('BADARG now is ' .. string.sub(now, 1, 32) .. ', give whole ms since 1970 or leave it empty')
end
-- end

local queue = string.sub(guard, 1, -6)
local function read(key)
  local header = redis.call('LRANGE', key, 0, 1)
  return header[1], string.find(header[2] or '', '^%d+$') and tonumber(header[2])
end

-- The reply was lost and the call is sent again: the same batch, if it is still held, and never a second one.
local held = redis.call('ZSCORE', leases, id)
if held then
  local group, attempts = read(batch)
  return { 0, {}, tonumber(held), group or '', attempts or 0, redis.call('LRANGE', batch, 2, -1) }
elseif redis.call('GET', ended) or redis.call('LLEN', batch) > 0 then
  return { -1, {} }
end

local first_rate = 9
-- idiom: rates
-- As in limit/acquire, for a cost of 1: what a span has seen is the total less what its first grant says.
local newest = redis.call('ZREVRANGE', grants, 0, 0, 'WITHSCORES')
local before, last = string.match(newest[1] or '', '^(%d+) (%d+)$')
local total, longest, closed = (before or 0) + (last or 0), 0, 0
local granted_at = math.max(now, tonumber(newest[2] or 0))
for i = first_rate, #ARGV, 2 do
  local limit, per = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local first = redis.call('ZRANGEBYSCORE', grants, granted_at - per, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[1] and total - (string.match(first[1], '^%d+') or 0) >= limit then
    closed = math.max(closed, first[2] + per + 1 - now)
  end
  longest = math.max(longest, per)
end
-- end
if closed > 0 then
  return { closed, {} }
end

-- Look at what is due, the earliest first, a bounded number; then at the longest group. Nothing is written yet: each
-- key that will be written is read first.
local due = {}
local function look(kind, zset, wait)
  local seen = redis.call('ZRANGEBYSCORE', zset, '-inf', now - wait, 'WITHSCORES', 'LIMIT', 0, 10)
  for i = 1, #seen, 2 do
    due[#due + 1] = { kind = kind, zset = zset, name = seen[i], at = seen[i + 1] + wait, rank = #due }
  end
  return #seen == 20
end
local more = look('batch', leases, 0)
more = look('batch', delayed, 0) or more
if tonumber(max_wait) > 0 then
  more = look('group', since, tonumber(max_wait)) or more
end
table.sort(due, function(a, b)
  if a.at == b.at then
    return a.rank < b.rank
  end
  return a.at < b.at
end)
local longest_group = redis.call('ZREVRANGE', groups, 0, 0, 'WITHSCORES')
if longest_group[1] and tonumber(longest_group[2]) >= tonumber(min_size) and not more then
  due[#due + 1] = { kind = 'group', zset = groups, name = longest_group[1] }
end

local chosen, gone, buried = nil, {}, {}
for _, one in ipairs(due) do
  if one.kind == 'group' then
    one.length = redis.call('LLEN', queue .. 'items:' .. one.name)
  else
    one.group, one.attempts = read(queue .. 'batch:' .. one.name)
    redis.call('EXISTS', queue .. 'ended:' .. one.name)
  end
  if one.length == 0 or one.kind == 'batch' and not one.group then
    gone[#gone + 1] = one -- an entry whose list the server evicted
  elseif one.kind == 'batch' and not one.attempts then
    buried[#buried + 1] = one -- not begun with a group and attempts: nobody can work on it, and nobody loses it
  elseif one.attempts and tonumber(max_attempts) > 0 and one.attempts >= tonumber(max_attempts) then
    buried[#buried + 1] = one
  else
    chosen = one
    break
  end
end
redis.call('ZCARD', since)
redis.call('ZCARD', dead)
local tokens = redis.call('LLEN', wake)

for _, one in ipairs(gone) do
  redis.call('ZREM', one.zset, one.name)
  if one.kind == 'group' then
    redis.call('ZREM', groups, one.name)
    redis.call('ZREM', since, one.name)
  end
end
local named = {}
for _, one in ipairs(buried) do
  redis.call('ZREM', one.zset, one.name)
  redis.call('ZADD', dead, now, one.name)
  for _, part in ipairs({ one.name, one.group, one.attempts or 0 }) do
    named[#named + 1] = part
  end
end

if not chosen then
  local retry = (more or #gone > 0) and 0 or -1
  local function ask(zset, wait)
    local first = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')
    if first[2] and (retry < 0 or first[2] + wait - now < retry) then
      retry = math.max(0, first[2] + wait - now)
    end
  end
  ask(leases, 0)
  ask(delayed, 0)
  if tonumber(max_wait) > 0 then
    ask(since, tonumber(max_wait))
  end
  return { retry, named }
end

local deadline, group, attempts, taken = now + lease, chosen.group or chosen.name, 1, nil
if chosen.kind == 'batch' then
  -- It gets the new id for its name, so who held it under the old one finds nothing there.
  attempts = chosen.attempts + 1
  redis.call('ZREM', chosen.zset, chosen.name)
  redis.call('RENAME', queue .. 'batch:' .. chosen.name, batch)
  redis.call('LSET', batch, 1, attempts)
  if tonumber(window) > 0 then
    redis.call('SET', queue .. 'ended:' .. chosen.name, 'lost', 'PX', window, 'NX')
  end
else
  local items = queue .. 'items:' .. group
  taken = redis.call('RPOP', items, size)
  redis.call('RPUSH', batch, group, attempts)
  for i = 1, #taken, 1000 do
    redis.call('RPUSH', batch, unpack(taken, i, math.min(i + 999, #taken)))
  end
  local length = redis.call('LLEN', items)
  if length == 0 then
    redis.call('ZREM', groups, group)
    redis.call('ZREM', since, group)
  else
    redis.call('ZADD', groups, length, group)
    redis.call('ZADD', since, now, group)
  end
end
redis.call('ZADD', leases, deadline, id)
-- idiom: charge
if longest > 0 then
  redis.call('ZADD', grants, granted_at, string.format('%016.0f 1', total))
  local expired = redis.call('ZCOUNT', grants, '-inf', '(' .. string.format('%.0f', granted_at - longest))
  if expired > 0 then
    redis.call('ZREMRANGEBYRANK', grants, 0, math.min(expired, 100) - 1)
  end
  redis.call('PEXPIRE', grants, longest + 1000)
end
-- end
if tokens == 0 then
  local due_now = redis.call('ZCOUNT', leases, '-inf', now) + redis.call('ZCOUNT', delayed, '-inf', now)
  if redis.call('ZCARD', groups) + due_now > 0 then
    redis.call('LPUSH', wake, 1) -- there is more: whoever waits next is to look
  end
end
return { 0, named, deadline, group, attempts, taken or redis.call('LRANGE', batch, 2, -1) }
