--!df flags=allow-undeclared-keys
-- buffer/discard: throw dead letters away
--
-- KEYS[1]   meta    hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]   dead    zset    {queue}:dead       batch id -> ms at which it was buried
-- KEYS[3]   once    string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]   window  int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  id      string  0..1000            dead batches; others are passed over
-- COMPUTES  {queue}:groups, {queue}:leases, {queue}:delayed, {queue}:batch:<id>, {queue}:paused_groups, {queue}:wake
-- REPLY     discarded                          how many batches were dead
-- ERROR     BADARG                             an argument is out of range
-- ERROR     LAYOUT                             the queue's mark is not 2 buffer
-- REPLAY    once                               the same id within the window: nothing more, the same answer

local call = redis.call
local meta, dead, once = unpack(KEYS)
local window = ARGV[1]
if #KEYS ~= 3 or #ARGV < 1 or #ARGV > 1001
  or #window > 9 or not string.find(window, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 1)), 1, 80)
    .. ': discard takes 3 keys, a window of 0..999999999 ms, at most 1000 ids')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
-- idiom: once
local answer = call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end
if #ARGV == 1 then
  return 0
end
local queue, ids, lists = string.sub(meta, 1, -5), {}, {}
for i, time in ipairs(call('ZMSCORE', dead, unpack(ARGV, 2))) do
  if time then
    ids[#ids + 1], lists[#lists + 1] = ARGV[i + 1], queue .. 'batch:' .. ARGV[i + 1]
    call('LLEN', lists[#lists])
  end
end
answer = call('ZREM', dead, '', unpack(ids)) -- '' is no id: a full server takes what follows a write that could free
if #lists > 0 then
  call('UNLINK', unpack(lists))
  -- idiom: buffer drained
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
end
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
