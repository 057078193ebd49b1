--!df flags=allow-undeclared-keys
-- priority/remove: take members out, whatever their state
--
-- KEYS[1]   meta     hash    {queue}:meta       the queue's mark and counters
-- KEYS[2]   ready    zset    {queue}:ready      member -> score, the lowest leaves first
-- KEYS[3]   held     set     {queue}:held       members of all leases
-- KEYS[4]   delayed  zset    {queue}:delayed    member -> ms when it is due
-- KEYS[5]   dead     zset    {queue}:dead       member -> ms at which it was buried
-- KEYS[6]   once     string  {queue}:once:<id>  the answer that this call gave
-- ARGV[1]   window   int     0..999999999       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member   bytes   0..1000            so many of them
-- COMPUTES  {queue}:leases, {queue}:again, {queue}:rows, {queue}:payloads, {queue}:wake
-- REPLY     removed                             how many were there; a leased one is forgotten when its lease ends
-- ERROR     BADARG                              an argument is out of range
-- ERROR     LAYOUT                              the queue's mark is not 2 fifo or 2 score
-- REPLAY    once                                the same id within the window: nothing more, the same answer

local call = redis.call
local meta, ready, held, delayed, dead, once = unpack(KEYS)
local window = ARGV[1]
if #KEYS ~= 6 or #ARGV < 1 or #ARGV > 1001
  or #window > 9 or not string.find(window, '^%d+$') then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 1)), 1, 80)
    .. ': remove takes 6 keys, a window of 0..999999999 ms, at most 1000 members')
end
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
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
-- idiom: spread
-- A small hash is searched field by field, which for many of them costs most of all: a long field makes it a table.
local function spread(key, values)
  if #values > 64 and call('HSETNX', key, string.rep('-', 65), '') == 1 then
    call('HSET', key, values[1], values[2]) -- a hash without any field would be gone, and small again
    call('HDEL', key, string.rep('-', 65))
  end
end
-- end
local queue, notes, seen = string.sub(meta, 1, -5), {}, {}
local again, rows, payloads = queue .. 'again', queue .. 'rows', queue .. 'payloads'
for _, index in ipairs({ ready, delayed, dead }) do
  call('ZCARD', index)
end
call('HLEN', rows)
call('HLEN', payloads)
local noted = call('HMGET', again, unpack(ARGV, 2))
for i, leased in ipairs(call('SMISMEMBER', held, unpack(ARGV, 2))) do
  local member = ARGV[i + 1]
  if leased == 1 and noted[i] ~= 'removed' and not seen[member] then
    notes[#notes + 1], notes[#notes + 2], seen[member] = member, 'removed', true
  end
end
answer = #notes / 2
for _, index in ipairs({ ready, delayed, dead }) do
  answer = answer + call('ZREM', index, unpack(ARGV, 2))
end
call('HDEL', rows, unpack(ARGV, 2))
call('HDEL', payloads, unpack(ARGV, 2))
if #notes > 0 then
  spread(again, notes)
  call('HSET', again, unpack(notes)) -- its holder still works on it
end
-- idiom: priority drained
if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
end
-- end
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
