-- limit/acquire: grant as much as every rate allows now
--
-- KEYS[1]   grants  zset    {queue}:grants     "<granted before it> <granted>" -> ms of the grant
-- KEYS[2]   once    string  {queue}:once:<id>  the answer this call gave
-- KEYS[3]   layout  string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   cost    int     1..1000000000      how much is wanted
-- ARGV[2]   window  int     0..604800000       ms that a grant is remembered, 0: not at all
-- ARGV[3]   now     ms                         empty: the server's clock
-- ARGV[4+]  rate    pairs   limit per          one or more: at most limit in any span of per ms
-- REPLY     [granted, retry]                   granted: 0..cost; retry: ms until more can be had, 0 if none is missing
-- ERROR     BADARG                             an argument is out of range
-- ERROR     LAYOUT                             these keys are of another layout than this script
-- REPLAY    once                               the same id within the window: nothing more, the same answer

local grants, once, layout = KEYS[1], KEYS[2], KEYS[3]
local cost, window, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 3 or #ARGV < 5 or #ARGV % 2 == 0 then
  return redis.error_reply('BADARG acquire takes 3 keys, 3 arguments and pairs of limit and per')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(cost, '^%d+$') or tonumber(cost) < 1 or tonumber(cost) > 1000000000 then
  return redis.error_reply('BADARG cost is ' .. string.sub(cost, 1, 32) .. ', give a whole number from 1 to 1000000000')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end
for i = 4, #ARGV do
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

local answer = redis.call('GET', once)
if answer then
  local granted, retry = string.match(answer, '^(%d+) (%d+)$')
  return { tonumber(granted), tonumber(retry) }
end

-- Each grant says what had been granted before it, so what a span has seen is the total less what its first grant
-- says: one look-up a rate, however many grants there are, and exact.
local newest = redis.call('ZREVRANGE', grants, 0, 0, 'WITHSCORES')
local before, last = string.match(newest[1] or '', '^(%d+) (%d+)$')
local total = (before or 0) + (last or 0)
now = math.max(now, tonumber(newest[2] or 0)) -- a clock that was set back must not open a span twice

local granted, longest, spans = tonumber(cost), 0, {}
for i = 4, #ARGV, 2 do
  local limit, per = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local first = redis.call('ZRANGEBYSCORE', grants, now - per, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local free = limit
  if first[1] then
    free = limit - total + (string.match(first[1], '^%d+') or 0)
  end
  granted = math.max(0, math.min(granted, free))
  longest = math.max(longest, per)
  spans[#spans + 1] = { free, tonumber(first[2] or now) + per + 1 - now }
end

-- A rate that is used up opens when the first grant in its span has left it, a ms late rather than early.
local retry = 0
for _, span in ipairs(spans) do
  if granted < tonumber(cost) and span[1] <= granted then
    retry = math.max(retry, span[2])
  end
end
if granted == 0 then
  return { 0, retry }
end

redis.call('ZADD', grants, now, string.format('%016.0f %.0f', total, granted))
local expired = redis.call('ZCOUNT', grants, '-inf', '(' .. string.format('%.0f', now - longest))
if expired > 0 then
  redis.call('ZREMRANGEBYRANK', grants, 0, math.min(expired, 100) - 1)
end
redis.call('PEXPIRE', grants, longest + 1000)

-- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the grant.
if tonumber(window) > 0 then
  redis.call('SET', once, granted .. ' ' .. retry, 'PX', window)
end
return { granted, retry }
