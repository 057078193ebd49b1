-- priority/state: say where one member is
--
-- KEYS[1]  ready   zset   {queue}:ready  member -> score
-- KEYS[2]  later   zset   {queue}:later  member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows    hash   {queue}:rows   member -> score attempts asked asked_due owner
-- ARGV[1]  member  bytes
-- REPLY    state                         absent | ready | delayed | leased | dead, as the last reserve or pop left it
-- ERROR    BADARG                        an argument is missing
-- REPLAY   yes                           it only reads

local ready, later, rows = KEYS[1], KEYS[2], KEYS[3]
local member = ARGV[1]

if #KEYS ~= 3 or #ARGV ~= 1 then
  return redis.error_reply('BADARG state takes 3 keys and 1 argument')
end

local due = redis.call('ZSCORE', later, member)
local row = redis.call('HGET', rows, member)
if redis.call('ZSCORE', ready, member) then
  return 'ready'
elseif not due then
  return 'absent'
elseif tonumber(due) == math.huge then
  return 'dead'
elseif row and string.match(row, '^%S+ %S+ %S+ %S+ (.*)$') ~= '' then
  return 'leased'
end
return 'delayed'
