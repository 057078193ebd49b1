--!df flags=allow-undeclared-keys
-- buffer/redrive: give dead letters another life
--
-- KEYS[1]   dead     zset    {queue}:dead       batch id -> ms at which it was buried
-- KEYS[2]   delayed  zset    {queue}:delayed    batch id -> ms when it is due again
-- KEYS[3]   once     string  {queue}:once:<id>  the answer that this call gave
-- KEYS[4]   wake     list    {queue}:wake       a token for who waits
-- KEYS[5]   guard    none    {queue}:guard      never exists: while a cluster moves the slot: TRYAGAIN
-- KEYS[6]   layout   string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   window   int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[2]   now      ms                         empty: the server's clock
-- ARGV[3+]  id       string  0..1000 of them    dead batches; others are passed over
-- COMPUTES  {queue}:batch:<id>
-- REPLY     count                               how many batches are redriven
-- ERROR     BADARG                              an argument is out of range
-- ERROR     LAYOUT                              these keys are of another layout than this script
-- REPLAY    once                                the same id within the window: nothing more, the same answer

local dead, delayed, once, wake, guard, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local window, now = ARGV[1], ARGV[2]

if #KEYS ~= 6 or #ARGV < 2 or #ARGV > 1002 then
  return redis.error_reply('BADARG redrive takes 6 keys, 2 arguments and at most 1000 ids')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
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

-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

redis.call('ZCARD', delayed)
local tokens = redis.call('LLEN', wake)
local queue = string.sub(guard, 1, -6)
local ids, places = {}, {}
for i, died in ipairs(#ARGV > 2 and redis.call('ZMSCORE', dead, unpack(ARGV, 3)) or {}) do
  -- One that does not begin with a group and attempts stays where it is: nobody could work on it.
  local id = ARGV[i + 2]
  if died and string.find(redis.call('LINDEX', queue .. 'batch:' .. id, 1) or '', '^%d+$') then
    ids[#ids + 1] = id
    places[#places + 1], places[#places + 2] = now, id
  end
end
-- A write that frees, though there is nothing to free: after it a full server takes the rest.
redis.call('DEL', once)
answer = 0
if #ids > 0 then
  answer = redis.call('ZREM', dead, unpack(ids)) -- one that was given twice is counted once
  redis.call('ZADD', delayed, unpack(places))
  for _, id in ipairs(ids) do
    redis.call('LSET', queue .. 'batch:' .. id, 1, 0)
  end
end
if answer > 0 and tokens == 0 then
  redis.call('LPUSH', wake, 1)
end
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
