--!df flags=allow-undeclared-keys
-- priority/push: add unique members, each keeping the lowest score and the earliest time that was asked for
--
-- KEYS[1]   meta      hash    {queue}:meta       the queue's mark, its counters, and sequence: the last place given (fifo)
-- KEYS[2]   ready     zset    {queue}:ready      member -> score; fifo: priority + 1024, then the place in twelve digits
-- KEYS[3]   once      string  {queue}:once:<id>  the answer that this push gave
-- KEYS[4]   wake      list    {queue}:wake       a wake-up for blocked clients
-- ARGV[1]   order     enum    fifo | score       the first push decides it for the queue
-- ARGV[2]   how       enum    min | set          set: score and due time become exactly these
-- ARGV[3]   options   ints                       whole numbers, a blank between them:
--             delay     0..99999999999           ms until the members are due
--             window    0..999999999             ms that the answer is remembered, 0: not at all
--             fields    2..3                     3: a payload follows each member
-- ARGV[4]   now       ms                         empty: the server's clock
-- ARGV[5+]  item      pairs   0..500             priority, member, payload of so many, none twice; a finite priority, in
--                                                fifo order a whole one from -1024 to 1023; an empty payload is one
-- COMPUTES  {queue}:held, {queue}:delayed, {queue}:dead, {queue}:again, {queue}:rows, {queue}:payloads
-- REPLY     outcomes                             one letter a member: A added, R raised, C changed by set, K kept
-- ERROR     BADARG                               an argument is out of range
-- ERROR     LAYOUT                               the queue's mark is not 2 fifo or 2 score
-- ERROR     WRONGORDER                           the queue is kept in the other order
-- REPLAY    once                                 the same id within the window: nothing more, the same answer

local call = redis.call
local meta, ready, once, wake = unpack(KEYS)
local order, how, options, now = unpack(ARGV, 1, 4)
local delay, window, fields = string.match(options or '', '^(%d+) (%d+) ([23])$')
if #KEYS ~= 4 or #ARGV < 4
  or order ~= 'fifo' and order ~= 'score' or how ~= 'min' and how ~= 'set' or not delay or #delay > 11 or #window > 9
  or (#ARGV - 4) % fields > 0 or #ARGV - 4 > 500 * fields or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 4)), 1, 80)
    .. ': push takes 4 keys, fifo or score, min or set, "delay window fields", ms since 1970 or nothing, 500 members')
end
-- idiom: order
local mark = call('HGET', meta, 'queue')
local kept = mark or call('EXISTS', ready) == 1 and '2 score' -- a plain sorted set is taken as it is
if kept and kept ~= '2 ' .. order then
  local code = (kept == '2 fifo' or kept == '2 score') and 'WRONGORDER' or 'LAYOUT'
  return redis.error_reply(code .. ' this queue is marked ' .. string.sub(kept, 1, 32) .. ', the call is for 2 ' .. order)
end
-- end
-- Usually this push is new, nobody holds the members, and nothing is known of them: what is delayed or dead has a row.
local queue, tokens = string.sub(meta, 1, -5), call('LLEN', wake)
local held, rows = queue .. 'held', queue .. 'rows'
local special = call('EXISTS', once, held, rows) > 0
local answer = special and call('GET', once)
if answer then
  return answer
end
local fifo, width, count = order == 'fifo', tonumber(fields), (#ARGV - 4) / fields
local plain = how == 'min' and delay == '0' and fields == '2' and not (special and call('EXISTS', rows) == 1)
local single = plain and not special and count == 1 -- as most pushes are: it needs no tables, which cost most
local members, numbers, seen, number, last = single or {}, single or {}, single or {}, nil, nil
for i = 5, #ARGV, width do
  local text, member, n, bad = ARGV[i], ARGV[i + 1], (i - 5) / width + 1, false
  if text ~= last then -- most have the priority of the one before
    number, last = tonumber(text), text
    bad = not number or fifo and (number % 1 ~= 0 or number < -1024 or number > 1023)
      or not fifo and (number - number ~= 0 or string.find(text, '[^%d.eE+-]'))
  end
  if bad or not single and seen[member] then
    return redis.error_reply('BADARG priority is ' .. string.sub(text, 1, 32)
      .. ': give a finite number, in fifo order a whole one from -1024 to 1023, and no member twice')
  elseif not single then
    members[n], numbers[n], seen[member] = member, number, true
  end
end
if count == 0 then
  return ''
end
local leased, some = special and call('SMISMEMBER', held, unpack(members)), false
for i = 1, special and count or 0 do
  some = some or leased[i] == 1
end
plain = plain and not some
local noted, dues, deaths, rest
local at, delayed, dead = '0', not plain and queue .. 'delayed', not plain and queue .. 'dead' -- due at 0: at once
if not plain then
  noted, rest = some and call('HMGET', queue .. 'again', unpack(members)), call('HMGET', rows, unpack(members))
  dues, deaths = call('ZMSCORE', delayed, unpack(members)), call('ZMSCORE', dead, unpack(members))
  call('HLEN', queue .. 'payloads')
  if delay ~= '0' then
    -- idiom: clock
    if now == '' then
      local time = call('TIME')
      now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
    end
    -- end
    at = string.format('%d', now + delay)
  end
end
local waits = (single or plain and fifo) and call('ZCARD', ready) or call('ZMSCORE', ready, unpack(members))

-- The first write needs memory, so a full server refuses the whole push: PERSIST does not, so in score order the mark is
-- written each time.
local place = fifo and call('HINCRBY', meta, 'sequence', count == 1 and '1' or string.format('%d', count)) - count
if not (mark and fifo) then
  call('HSET', meta, 'queue', '2 ' .. order)
end
if not fifo or place == 0 then
  call('PERSIST', meta) -- the queue may have been empty, and its counters be about to expire
end
local wanted, outcomes = single or {}, single or {} -- wanted: score, member, ...
if not single then
  -- Numbers become text a hundred at a time, all but their last two digits: that is what costs most.
  local sub, high, head, digits = string.sub, nil, nil, '0001020304050607080910111213141516171819202122232425262728293031'
    .. '3233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687'
    .. '888990919293949596979899'
  for i = 1, count do
    local score = not fifo and ARGV[5 + width * (i - 1)]
    if fifo then
      local value, nth, low = numbers[i], place + i, (place + i) % 100
      if nth - low ~= high or value ~= numbers[i - 1] then
        high = nth - low
        head = string.format('%d%010d', value + 1024, high / 100 % 10000000000)
      end
      score = head .. sub(digits, 2 * low + 1, 2 * low + 2)
    end
    wanted[2 * i - 1], wanted[2 * i] = score, members[i]
  end
end
if single then
  local score = fifo and string.format('%d%012d', number + 1024, (place + 1) % 1000000000000) or ARGV[5]
  answer = call('ZADD', ready, 'NX', score, ARGV[6]) == 1 and 'A' -- it is looked for twice only if it is there
    or call('ZADD', ready, 'LT', 'CH', score, ARGV[6]) == 1 and 'R' or 'K'
elseif plain then
  local added = call('ZADD', ready, 'NX', unpack(wanted))
  answer = string.rep('A', added)
  if added < count then -- some were there: in fifo order those whose score is not the one that they were just given
    local there = call('ZMSCORE', ready, unpack(members))
    for i = 1, count do
      local score, was = tonumber(wanted[2 * i - 1]), tonumber(there[i])
      local new = fifo and score == was or not fifo and not waits[i]
      outcomes[i] = new and 'A' or score < was and 'R' or 'K'
    end
    answer = table.concat(outcomes)
    call('ZADD', ready, 'LT', unpack(wanted))
  end
else
  local notes, parked, ripe, new, payloads, unready, undelayed, undead, unknown = {}, {}, {}, {}, {}, {}, {}, {}, {}
  -- idiom: spread
  -- A small hash is searched field by field, which for many of them costs most of all: a long field makes it a table.
  local function spread(key, values)
    if #values > 64 and call('HSETNX', key, string.rep('-', 65), '') == 1 then
      call('HSET', key, values[1], values[2]) -- a hash without any field would be gone, and small again
      call('HDEL', key, string.rep('-', 65))
    end
  end
  -- end
  local function add(list, first, second)
    local n = #list
    list[n + 1], list[n + 2] = first, second
  end
  local time = tonumber(at)
  for i, member in ipairs(members) do
    local score, due, was, was_due, kind = wanted[2 * i - 1], at, waits[i], '0', how
    local value = fifo and (numbers[i] + 1024) * 1000000000000 + (place + i) % 1000000000000 or numbers[i] -- of score
    local hand = some and leased[i] == 1
    if hand then
      -- A worker holds it: the push is noted, and done when the lease ends. What was removed meanwhile asks for nothing.
      was, was_due, kind = string.match(noted[i] or '', '^(%S+) (%S+) (%a+)$')
      kind = (how == 'set' or noted[i] == 'removed') and 'set' or kind or 'min'
    elseif dues[i] then
      was, was_due = string.match(rest[i] or score, '^%S+'), dues[i]
    end
    outcomes[i] = 'A'
    if was then
      local higher, later = value - was, due == was_due and 0 or time - was_due
      outcomes[i] = (higher < 0 or later < 0) and 'R' or 'K'
      if how == 'set' then
        outcomes[i] = (higher > 0 or later > 0) and 'C' or outcomes[i]
      else
        score, due = higher < 0 and score or was, later < 0 and due or was_due
      end
    end
    if hand then
      add(notes, member, score .. ' ' .. due .. ' ' .. kind)
    elseif due == '0' then
      add(ripe, score, member)
      undelayed[#undelayed + 1] = dues[i] and member or nil
      unknown[#unknown + 1] = rest[i] and member or nil -- a push asks anew: attempts and reason start afresh
    else
      add(parked, due, member)
      add(new, member, score .. ' 0 ')
      unready[#unready + 1] = waits[i] and member or nil
    end
    undead[#undead + 1] = not hand and deaths[i] and member or nil
    if fields == '3' then
      add(payloads, member, ARGV[4 + 3 * i])
    end
  end
  for _, write in ipairs({
    { 'HSET', queue .. 'again', notes }, { 'ZADD', delayed, parked }, { 'HSET', rows, new },
    { 'HSET', queue .. 'payloads', payloads }, { 'ZADD', ready, ripe }, { 'ZREM', ready, unready },
    { 'ZREM', delayed, undelayed }, { 'ZREM', dead, undead }, { 'HDEL', rows, unknown },
  }) do
    if #write[3] > 0 then
      if write[1] == 'HSET' then
        spread(write[2], write[3])
      end
      call(write[1], write[2], unpack(write[3]))
    end
  end
  answer = table.concat(outcomes)
end
if tokens == 0 then
  call('LPUSH', wake, '1')
end
-- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the members.
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
