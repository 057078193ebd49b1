--!df flags=allow-undeclared-keys
-- buffer/discard: throw dead letters away
--
-- KEYS[1]   dead     zset    {queue}:dead       batch id -> ms at which it was buried
-- KEYS[2]   once     string  {queue}:once:<id>  the answer that this call gave
-- KEYS[3]   guard    none    {queue}:guard      never exists: while a cluster moves the slot: TRYAGAIN
-- KEYS[4]   layout   string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   window   int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  id       string  0..1000 of them    dead batches; others are passed over
-- COMPUTES  {queue}:batch:<id>
-- REPLY     count                               how many batches are discarded
-- ERROR     BADARG                              an argument is out of range
-- ERROR     LAYOUT                              these keys are of another layout than this script
-- REPLAY    once                                the same id within the window: nothing more, the same answer

local dead, once, guard, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local window = ARGV[1]

if #KEYS ~= 4 or #ARGV < 1 or #ARGV > 1001 then
  return redis.error_reply('BADARG discard takes 4 keys, 1 argument and at most 1000 ids')
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

-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

local queue = string.sub(guard, 1, -6)
local ids, batches = {}, {}
for i, died in ipairs(#ARGV > 1 and redis.call('ZMSCORE', dead, unpack(ARGV, 2)) or {}) do
  if died then
    local batch = queue .. 'batch:' .. ARGV[i + 1]
    redis.call('LLEN', batch) -- of another type, it stops the script here
    ids[#ids + 1], batches[#batches + 1] = ARGV[i + 1], batch
  end
end
-- A write that frees, though there is nothing to free: after it a full server lets the answer be remembered.
redis.call('DEL', once)
answer = 0
if #ids > 0 then
  answer = redis.call('ZREM', dead, unpack(ids)) -- one that was given twice is counted once
  redis.call('UNLINK', unpack(batches))
end
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
