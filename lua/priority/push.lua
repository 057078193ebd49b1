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
-- ARGV[5+]  item      pairs   0..1000            priority, member, payload of so many, none twice; a finite priority, in
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
if #KEYS ~= 4 or #ARGV < 4 then
  return redis.error_reply('BADARG push takes 4 keys, 4 arguments and at most 1000 members')
end
-- idiom: order
local mark = call('HGET', meta, 'queue')
local kept = mark or call('EXISTS', ready) == 1 and '2 score' -- a plain sorted set is taken as it is
if kept and kept ~= '2 ' .. order then
  local code = (kept == '2 fifo' or kept == '2 score') and 'WRONGORDER' or 'LAYOUT'
  return redis.error_reply(code .. ' this queue is marked ' .. string.sub(kept, 1, 32) .. ', the call is for 2 ' .. order)
end
-- end
local delay, window, fields = string.match(options, '^(%d+) (%d+) ([23])$')
if order ~= 'fifo' and order ~= 'score' or how ~= 'min' and how ~= 'set' or not delay or #delay > 11 or #window > 9
  or (#ARGV - 4) % fields > 0 or #ARGV - 4 > 1000 * fields or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG order, how, options, now are ' .. string.sub(table.concat(ARGV, ', ', 1, 4), 1, 80)
    .. ': give fifo or score, min or set, "delay window fields", ms since 1970 or nothing, then at most 1000 members')
end
-- idiom: once
local answer = call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end
local fifo, members, numbers, seen = order == 'fifo', {}, {}, {}
for i = 5, #ARGV, fields do
  local number, member = tonumber(ARGV[i]), ARGV[i + 1]
  if not number or number - number ~= 0 or seen[member] or string.find(ARGV[i], '[^%d.eE+-]')
    or fifo and (number % 1 ~= 0 or number < -1024 or number > 1023) then
    return redis.error_reply('BADARG priority is ' .. string.sub(ARGV[i], 1, 32)
      .. ': give a finite number, in fifo order a whole one from -1024 to 1023, and no member twice')
  end
  members[#members + 1], numbers[#numbers + 1], seen[member] = member, number, true
end
if #members == 0 then
  return ''
end

-- Usually nobody holds the members and nothing is known of them but their score.
local queue, at = string.sub(meta, 1, -5), '0' -- due at 0: at once
local held, delayed, dead, rows = queue .. 'held', queue .. 'delayed', queue .. 'dead', queue .. 'rows'
local plain = how == 'min' and delay == '0' and fields == '2' and call('EXISTS', delayed, dead, rows) == 0
local leased = call('SMISMEMBER', held, unpack(members))
for i = 1, #leased do
  plain = plain and leased[i] == 0
end
local scores, tokens, first = call('ZMSCORE', ready, unpack(members)), call('LLEN', wake), 0
local noted, dues, deaths, known
if not plain then
  noted, known = call('HMGET', queue .. 'again', unpack(members)), call('HMGET', rows, unpack(members))
  dues, deaths = call('ZMSCORE', delayed, unpack(members)), call('ZMSCORE', dead, unpack(members))
  call('HLEN', queue .. 'payloads')
  -- idiom: clock
  if now == '' then
    local time = call('TIME')
    now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
  end
  -- end
  at = delay == '0' and '0' or string.format('%.0f', now + delay)
end

-- The first write needs memory, so a full server refuses the whole push.
if fifo then
  first = call('HINCRBY', meta, 'sequence', #members == 1 and '1' or string.format('%d', #members)) - #members
end
if not mark then
  call('HSET', meta, 'queue', '2 ' .. order)
end
call('PERSIST', meta) -- if the queue was drained, its counters had been about to expire
local outcomes, ripe = {}, {}
local function score_of(i)
  if not fifo then
    return ARGV[5 + fields * (i - 1)], numbers[i]
  end
  local place = (first + i) % 1000000000000
  return string.format('%d%012d', numbers[i] + 1024, place), (numbers[i] + 1024) * 1000000000000 + place
end
if plain then
  for i, member in ipairs(members) do
    local score, number = score_of(i)
    outcomes[i] = not scores[i] and 'A' or number < tonumber(scores[i]) and 'R' or 'K'
    ripe[2 * i - 1], ripe[2 * i] = score, member
  end
  call('ZADD', ready, 'LT', unpack(ripe))
else
  local notes, parked, new, payloads, unready, undelayed, undead, unknown = {}, {}, {}, {}, {}, {}, {}, {}
  local function add(list, ...)
    for _, value in ipairs({ ... }) do
      list[#list + 1] = value
    end
  end
  for i, member in ipairs(members) do
    local score, number = score_of(i)
    local was, was_due, kind, due = scores[i], '0', how, at
    if leased[i] == 1 then
      -- A worker holds it: the push is noted, and done when the lease ends. What was removed meanwhile asks for nothing.
      was, was_due, kind = string.match(noted[i] or '', '^(%S+) (%S+) (%a+)$')
      kind = (how == 'set' or noted[i] == 'removed') and 'set' or kind or 'min'
    elseif dues[i] then
      was, was_due = string.match(known[i] or score, '^%S+'), dues[i]
    end
    outcomes[i] = 'A'
    if was then
      local before, sooner, later = tonumber(was), tonumber(due) < tonumber(was_due), tonumber(due) > tonumber(was_due)
      local raised = number < before or sooner
      outcomes[i] = raised and 'R' or 'K'
      if how == 'set' then
        outcomes[i] = (number > before or later) and 'C' or outcomes[i]
      else
        score, due = number < before and score or was, sooner and due or was_due
      end
    end
    if leased[i] == 1 then
      add(notes, member, score .. ' ' .. due .. ' ' .. kind)
    elseif due == '0' then
      add(ripe, score, member)
      add(undelayed, dues[i] and member or nil)
      add(unknown, known[i] and member or nil) -- a push asks anew: attempts and reason start afresh
    else
      add(parked, due, member)
      add(new, member, score .. ' 0 ')
      add(unready, scores[i] and member or nil)
    end
    add(undead, leased[i] == 0 and deaths[i] and member or nil)
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
      call(write[1], write[2], unpack(write[3]))
    end
  end
end
if tokens == 0 then
  call('LPUSH', wake, '1')
end
-- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the members.
answer = table.concat(outcomes)
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
