-- priority/release: give members of a lease back
--
-- KEYS[1]   ready         zset    {queue}:ready       member -> score
-- KEYS[2]   later         zset    {queue}:later       member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows          hash    {queue}:rows        member -> score attempts asked asked_due owner
-- KEYS[4]   held          list    {queue}:lease:<id>  held and its members, then how the lease ended
-- KEYS[5]   wake          list    {queue}:wake        a token for who waits
-- KEYS[6]   layout        string  {queue}:layout      the layout of these keys: 1, or absent
-- KEYS[7]   guard         none    {queue}:guard       never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]   id            string  not empty           the lease's
-- ARGV[2]   max_attempts  int     0..1000000000       hand-overs after which a member is dead, 0: never
-- ARGV[3]   delay         int     0..315360000000     ms until they are ready again
-- ARGV[4]   attempt       enum    count | forget      forget: this hand-over does not count, nobody began on it
-- ARGV[5]   window        int     0..604800000        ms that the answer is remembered, 0: not at all
-- ARGV[6]   now           ms                          empty: the server's clock
-- ARGV[7+]  member        bytes   1..1000 of them
-- REPLY     [back, dead member, ...]  how many of them were still held, and are given back; those that are
--                     dead instead, their attempts used up
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- ERROR     LEASELOST  none of the members is held by this lease any more
-- REPLAY    lease  the same answer

local ready, later, rows, held, wake, layout, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, max_attempts, delay, attempt, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

if #KEYS ~= 7 or #ARGV < 7 or #ARGV > 1006 then
  return redis.error_reply('BADARG release takes 7 keys, 6 arguments and 1 to 1000 members')
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
if not string.find(max_attempts, '^%d+$') or tonumber(max_attempts) > 1000000000 then
  return redis.error_reply('BADARG max_attempts is ' .. string.sub(max_attempts, 1, 32) .. ', give 0..1000000000')
end
if not string.find(delay, '^%d+$') or tonumber(delay) > 315360000000 then
  return redis.error_reply('BADARG delay is ' .. string.sub(delay, 1, 32) .. ', give whole ms from 0 to 315360000000')
end
if attempt ~= 'count' and attempt ~= 'forget' then
  return redis.error_reply('BADARG attempt is ' .. string.sub(attempt, 1, 32) .. ', give count or forget')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
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

redis.call('ZCARD', ready)
redis.call('ZCARD', later)
local tokens = redis.call('LLEN', wake)
local ended = redis.call('LRANGE', held, 0, -1)
local first = select(7, unpack(ARGV, 1, 7)) -- the member that a call is remembered by

-- idiom: back
-- A member comes back: a delay is over, its holder gave it back, or its holder died. A push that was noted meanwhile
-- counts, and outlives the member's own death. ZREM comes first: it frees, so a full server lets the rest follow.
local function finite(number)
  return tonumber(number) and tonumber(number) - tonumber(number) == 0
end
local function back(member, due)
  local row = redis.call('HGET', rows, member) or ''
  local score, attempts, asked, asked_due, owner = string.match(row, '^(%S+) (%d+) (%S+) (%S+) (.*)$')
  if not finite(score) or asked ~= '-' and not (finite(asked) and finite(asked_due)) then
    score, attempts, asked, owner = '0', '0', '-', '' -- a row that cannot be read must not cost the member
  end
  if owner ~= '' and tonumber(max_attempts) > 0 and tonumber(attempts) >= tonumber(max_attempts) then
    if asked == '-' then
      due = math.huge
    else
      score, attempts, due = asked, '0', tonumber(asked_due)
    end
  elseif asked ~= '-' then
    due = math.min(due, tonumber(asked_due))
    if tonumber(asked) < tonumber(score) then
      score = asked
    end
  end
  redis.call('ZREM', later, member)
  if due <= now then
    redis.call('ZADD', ready, score, member)
  elseif due < math.huge then
    redis.call('ZADD', later, due, member)
  else
    redis.call('ZADD', later, '+inf', member)
  end
  redis.call('HSET', rows, member, score .. ' ' .. attempts .. ' - - ')
  return due == math.huge
end
-- end

local count, dead, places = 0, {}, ''
for i = 7, #ARGV do
  local member = ARGV[i]
  local row = redis.call('HGET', rows, member) or ''
  local score, attempts, rest, owner = string.match(row, '^(%S+) (%d+) (%S+ %S+ )(.*)$')
  if owner == id then
    count = count + 1
    if attempt == 'forget' then
      redis.call('ZREM', later, member) -- frees first, so a full server takes it
      redis.call('HSET', rows, member, score .. ' ' .. math.max(0, attempts - 1) .. ' ' .. rest .. owner)
    end
    if back(member, now + delay) then
      dead[#dead + 1] = member
      places = places .. ' ' .. i
    end
  end
end
if count == 0 then
  for i = 1, ended[1] ~= 'held' and #ended or 0, 2 do
    local before, buried = string.match(ended[i], '^release (%d+)(.*)$')
    if before and ended[i + 1] == first then
      for place in string.gmatch(buried, '%d+') do
        dead[#dead + 1] = ARGV[tonumber(place)]
      end
      return { tonumber(before), unpack(dead) }
    end
  end
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end

if tokens == 0 then
  redis.call('LPUSH', wake, 1)
end
if ended[1] == 'held' then
  redis.call('DEL', held)
end
if tonumber(window) > 0 then
  redis.call('RPUSH', held, 'release ' .. count .. places, first) -- what this call did, by its first member
  redis.call('PEXPIRE', held, window)
end
return { count, unpack(dead) }
