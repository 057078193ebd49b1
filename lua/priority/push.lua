-- priority/push: add unique members, each keeping the most urgent place that was asked for
--
-- KEYS[1]   ready     zset    {queue}:ready      member -> score
-- KEYS[2]   later     zset    {queue}:later      member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows      hash    {queue}:rows       member -> score attempts asked asked_due owner
-- KEYS[4]   meta      hash    {queue}:meta       order, sequence
-- KEYS[5]   once      string  {queue}:once:<id>  the answer this push gave
-- KEYS[6]   wake      list    {queue}:wake       a token for who waits
-- KEYS[7]   layout    string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   order     enum    fifo | score       the first push decides it for the queue
-- ARGV[2]   delay     int     0..315360000000    ms until the members are ready
-- ARGV[3]   window    int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[4]   now       ms                         empty: the server's clock
-- ARGV[5+]  priority  pairs   priority member    at most 1000; fifo: -1024..1023, score: a finite number
-- REPLY     outcomes                             one letter a member: A added, R raised, K kept
-- ERROR     BADARG                               an argument is out of range
-- ERROR     LAYOUT                               these keys are of another layout than this script
-- ERROR     WRONGORDER                           the queue is kept in the other order
-- REPLAY    once                                 the same id within the window: nothing more, the same answer

local ready, later, rows, meta, once, wake, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local order, delay, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 7 or #ARGV < 4 or #ARGV > 2004 or #ARGV % 2 ~= 0 then
  return redis.error_reply('BADARG push takes 7 keys, 4 arguments and at most 1000 pairs of priority and member')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if order ~= 'fifo' and order ~= 'score' then
  return redis.error_reply('BADARG order is ' .. string.sub(order, 1, 32) .. ', give fifo or score')
end
if not string.find(delay, '^%d+$') or tonumber(delay) > 315360000000 then
  return redis.error_reply('BADARG delay is ' .. string.sub(delay, 1, 32) .. ', give whole ms from 0 to 315360000000')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end
if #ARGV == 4 then
  return ''
end
for i = 5, #ARGV, 2 do
  local priority = string.find(ARGV[i], '^[%d.eE+-]+$') and tonumber(ARGV[i])
  if not priority or priority - priority ~= 0 then
    return redis.error_reply('BADARG priority is ' .. string.sub(ARGV[i], 1, 32) .. ', give a finite number')
  end
  if order == 'fifo' and (priority % 1 ~= 0 or priority < -1024 or priority > 1023) then
    return redis.error_reply('BADARG priority is ' .. string.sub(ARGV[i], 1, 32) .. ', fifo takes whole -1024..1023')
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
-- idiom: order
local kept = redis.call('HGET', meta, 'order') or redis.call('EXISTS', ready) == 1 and 'score'
if kept and kept ~= order then
  return redis.error_reply('WRONGORDER this queue is kept in ' .. kept .. ' order, not in ' .. order)
end
-- end

-- A client that loses the reply sends the push again. It has been done: only its answer is due.
-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

-- Read every key before the first write: one of another type stops the script here, with nothing written.
redis.call('HLEN', rows)
local tokens = redis.call('LLEN', wake)
local sequence = tonumber(redis.call('HGET', meta, 'sequence') or 0) or 0
local parked = redis.call('ZCARD', later)
if redis.call('ZCARD', ready) + parked == 0 then
  sequence = 0 -- nobody is left to be overtaken, so the 2^42 places start anew
end
delay = tonumber(delay)
local at = now + delay

-- Where all of them are is read in one go, and what they become is written in one go: a member that is given twice
-- is looked up here, as the first time left it.
local members = {}
for i = 6, #ARGV, 2 do
  members[#members + 1] = ARGV[i]
end
local function by_member(values)
  local found = {}
  for i, member in ipairs(members) do
    found[member] = values[i]
  end
  return found
end
local waits, dues, noted = by_member(redis.call('ZMSCORE', ready, unpack(members))), {}, {}
if parked > 0 then
  dues = by_member(redis.call('ZMSCORE', later, unpack(members)))
  noted = by_member(redis.call('HMGET', rows, unpack(members)))
end
local ripe, delayed, leaving, new = {}, {}, {}, {}

local function park(member, due)
  delayed[#delayed + 1], delayed[#delayed + 2], dues[member] = due, member, due
end
local function note(member, score, attempts, pushed)
  local row = string.format('%.17g ', score) .. attempts .. (pushed or ' - - ')
  new[#new + 1], new[#new + 2], noted[member] = member, row, row
end
local function make_ready(member, score)
  ripe[#ripe + 1], ripe[#ripe + 2], waits[member], dues[member] = score, member, score, false
end

local function push_parked(member, score, due)
  local row = noted[member] or ''
  local old_score, attempts, asked, asked_due, owner = string.match(row, '^(%S+) (%d+) (%S+) (%S+) (.*)$')
  local old = tonumber(old_score)
  if not old or old - old ~= 0 or asked ~= '-' and not (tonumber(asked) and tonumber(asked_due)) then
    old, attempts, asked, asked_due, owner = score, 0, '-', '-', '' -- a row that cannot be read must not stop a push
  end

  -- Leased: the push is noted, and done when the lease ends. In two hands at once, or forgotten, is the recipe's race.
  if owner ~= '' then
    local first, first_due = tonumber(asked), tonumber(asked_due)
    if first and first <= score and first_due <= at then
      return 'K'
    end
    asked = string.format('%.17g', math.min(score, first or score))
    asked_due = string.format('%.0f', math.min(at, first_due or at))
    note(member, old, attempts, ' ' .. asked .. ' ' .. asked_due .. ' ' .. owner)
    return first and 'R' or 'A'
  end

  local outcome = (score < old or at < due) and 'R' or 'K'
  if due == math.huge then -- dead: starts afresh
    outcome, old, attempts, due = 'A', score, 0, at
  end
  score, due = math.min(score, old), math.min(at, due)
  if delay == 0 then
    make_ready(member, score)
    note(member, score, attempts)
    leaving[#leaving + 1] = member
  elseif outcome ~= 'K' then
    park(member, due)
    note(member, score, attempts)
  end
  return outcome
end

local function push(member, score, place, due)
  if due then
    return push_parked(member, score, tonumber(due))
  elseif place and tonumber(place) <= score then
    return 'K'
  elseif not place and delay > 0 then
    park(member, at)
    note(member, score, 0)
  else
    make_ready(member, score)
  end
  return place and 'R' or 'A'
end

local outcomes = {}
for i, member in ipairs(members) do
  local score = tonumber(ARGV[3 + 2 * i])
  if order == 'fifo' then
    sequence = sequence + 1
    score = score * 4398046511104 + sequence -- priority * 2^42 + place
  end
  outcomes[i] = push(member, score, waits[member], dues[member])
end

-- The first write needs memory, so a full server refuses the whole push.
if not mark then
  redis.call('SET', layout, 1)
end
redis.call('HSET', meta, 'order', order, 'sequence', sequence)
if #ripe > 0 then
  redis.call('ZADD', ready, unpack(ripe))
end
if #delayed > 0 then
  redis.call('ZADD', later, unpack(delayed))
end
if #new > 0 then
  redis.call('HSET', rows, unpack(new))
end
if #leaving > 0 then
  redis.call('ZREM', later, unpack(leaving))
end
-- One token is enough: who takes work and leaves some puts the next.
if tokens == 0 then
  redis.call('LPUSH', wake, 1)
end

-- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the members.
answer = table.concat(outcomes)
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
