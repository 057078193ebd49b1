--!df flags=allow-undeclared-keys
-- limit/acquire: take what every rate allows now, cost at most
--
-- KEYS[1]  meta    hash    {queue}:meta       the mark of the queue whose name the limiter shares, if there is one
-- KEYS[2]  once    string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]  cost    int     1..99999999999     how much is wanted
-- ARGV[2]  window  int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[3]  now     ms                         empty: the server's clock
-- ARGV[4+] rates   pairs   1..100             limit and per, 1..99999999999: at most limit in any per ms
-- COMPUTES {queue}:grants
-- REPLY    [granted, retry]                   retry: ms until more can be had, 0: nothing is missing
-- ERROR    BADARG                             an argument is out of range
-- ERROR    LAYOUT                             the queue's mark is of another layout
-- REPLAY   once                               the same id within the window: nothing more, the same answer

local call = redis.call
local meta, once = unpack(KEYS)
local cost, window, now = unpack(ARGV, 1, 3)
local first_rate = 4
if #KEYS ~= 2 or #ARGV < 5 or #ARGV > 203 then
  return redis.error_reply('BADARG acquire takes 2 keys, 3 arguments and 1 to 100 pairs of limit and per')
end
local mark = call('HGET', meta, 'queue')
if mark and string.sub(mark, 1, 2) ~= '2 ' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for layout 2')
end
if #cost > 11 or not string.find(cost, '^[1-9]%d*$') or #window > 9 or not string.find(window, '^%d+$')
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG cost, window, now are ' .. string.sub(table.concat(ARGV, ', ', 1, 3), 1, 80)
    .. ': give 1..99999999999, 0..999999999, ms since 1970 or nothing')
end
local answer = call('GET', once)
if answer then
  local granted, retry = string.match(answer, '^(%d+) (%d+)$')
  return { tonumber(granted), tonumber(retry) }
end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue = string.sub(meta, 1, -5)
cost = tonumber(cost)
-- idiom: grants
for i = first_rate, #ARGV do
  local number = tonumber(ARGV[i])
  if not number or number % 1 ~= 0 or number < 1 or number > 99999999999 or #ARGV % 2 == first_rate % 2 then
    return redis.error_reply('BADARG rates has ' .. string.sub(ARGV[i], 1, 32) .. ': give pairs of 1..99999999999')
  end
end
-- Each grant says what had been granted before it: what a span has seen is the total less what its first grant says.
local grants, total, longest = queue .. 'grants', 0, 0
local newest = #ARGV >= first_rate and call('ZRANGE', grants, '-1', '-1', 'WITHSCORES') or {}
if newest[1] then
  local before, last = string.match(newest[1], '^(%d+) (%d+)$')
  total = before + last
  if tonumber(newest[2]) > tonumber(now) then -- the clock was set back: what is dated later counts as granted now
    local later = call('ZRANGEBYSCORE', grants, '(' .. now, '+inf', 'LIMIT', '0', '1')
    before = string.match(later[1], '^%d+')
    call('ZREM', grants, '') -- it frees nothing, but after a write that could a full server takes the next ones
    call('ZADD', grants, now, before .. string.format(' %d', total - before))
    call('ZREMRANGEBYSCORE', grants, '(' .. now, '+inf') -- last, so that the key keeps its TTL
  end
end
-- end
-- idiom: rates
local granted, retry = cost, 0
for i = first_rate, #ARGV, 2 do
  local limit, per = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local start = string.format('%d', now - per)
  local first = call('ZRANGEBYSCORE', grants, start, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')
  local free, at = limit - total + (first[1] and string.match(first[1], '^%d+') or total), first[2] or now
  if free < 0 then -- the clock or the limit was set back: find the last grant that has to leave the span
    local low, high = call('ZRANK', grants, first[1]), call('ZCARD', grants) - 1
    while low < high do
      local middle = string.format('%d', math.ceil((low + high) / 2))
      local grant = call('ZRANGE', grants, middle, middle, 'WITHSCORES')
      if string.match(grant[1], '^%d+') - total + limit <= 0 then
        low, at = tonumber(middle), grant[2]
      else
        high = middle - 1
      end
    end
    free = 0
  end
  if free <= granted and free < cost then
    retry = math.max(free == granted and retry or 0, at + per + 1 - now)
    granted = free
  end
  longest = math.max(longest, per)
end
-- end
if granted > 0 then
  -- idiom: charge
  if longest > 0 then
    call('ZADD', grants, now, string.format('%016d %d', total, granted))
    local stale = call('ZCOUNT', grants, '-inf', string.format('(%d', now - longest))
    if stale > 0 then
      call('ZREMRANGEBYRANK', grants, '0', string.format('%d', math.min(stale, 100) - 1))
    end
    call('PEXPIRE', grants, string.format('%d', longest + 1000))
  end
  -- end
  -- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the grant.
  if tonumber(window) > 0 then
    call('SET', once, string.format('%d %d', granted, retry), 'PX', window)
  end
end
return { granted, retry }
