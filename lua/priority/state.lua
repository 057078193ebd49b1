-- priority/state: say where one member is
--
-- KEYS[1]  ready   zset   {queue}:ready  member -> score
-- KEYS[2]  later   zset   {queue}:later  member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows    hash   {queue}:rows   member -> score attempts asked asked_due owner
-- KEYS[4]  layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- ARGV[1]  member  bytes
-- REPLY    state                         absent | ready | delayed | leased | dead, as the last reserve or pop left it
-- ERROR    BADARG                        an argument is missing
-- ERROR    LAYOUT                        these keys are of another layout than this script
-- REPLAY   yes                           it only reads

local ready, later, rows, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member = ARGV[1]

if #KEYS ~= 4 or #ARGV ~= 1 then
  return redis.error_reply('BADARG state takes 4 keys and 1 argument')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end

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
