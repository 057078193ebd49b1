--!df flags=allow-undeclared-keys
-- limit/acquire: take what every rate allows now, cost at most
--
-- KEYS[1]  meta     hash    {queue}:meta       the mark of the queue whose name the limiter shares, if there is one
-- KEYS[2]  once     string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]  options  ints                       whole numbers, a blank between them:
--            cost     1..99999999999           how much is wanted
--            window   0..999999999             ms that the answer is remembered, 0: not at all
-- ARGV[2]  now      ms                         empty: the server's clock
-- ARGV[3+] rates    pairs   1..50              limit and per, 1..99999999999: at most limit in any per ms
-- COMPUTES {queue}:grants
-- REPLY    [granted, retry]                    retry: ms until more can be had, 0: nothing is missing
-- ERROR    BADARG                              an argument is out of range
-- ERROR    LAYOUT                              the queue's mark is of another layout
-- REPLAY   once                                the same id within the window: nothing more, the same answer

local call = redis.call
local meta, once = unpack(KEYS)
local options, now = unpack(ARGV, 1, 2)
local first_rate = 3
local wanted, window = string.match(options or '', '^([1-9]%d*) (%d+)$')
if #KEYS ~= 2 or #ARGV < 4 or #ARGV > 102 or #ARGV % 2 > 0
  or not wanted or #wanted > 11 or #window > 9 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 2)), 1, 80)
    .. ': acquire takes 2 keys, "cost window", ms since 1970 or nothing')
end
local mark = call('HGET', meta, 'queue')
if mark and string.sub(mark, 1, 2) ~= '2 ' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for layout 2')
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
local queue, cost = string.sub(meta, 1, -5), tonumber(wanted)
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
if granted > 0 then
  local amount = granted == cost and wanted or string.format('%d', granted)
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
  -- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the grant.
  if tonumber(window) > 0 then
    call('SET', once, amount .. (retry == 0 and ' 0' or string.format(' %d', retry)), 'PX', window)
  end
end
return { granted, retry }
