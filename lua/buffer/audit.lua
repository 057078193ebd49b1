--!df flags=allow-undeclared-keys
-- buffer/audit: find, and on request mend, what disagrees between a queue's keys
--
-- KEYS[1]   groups  zset  {queue}:groups    group -> waiting length
-- KEYS[2]   since   zset  {queue}:since     group -> ms it became non-empty or was last served
-- KEYS[3]   guard   none  {queue}:guard     never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]   cursor  string                  start with keys:0, then the last reply's cursor
-- ARGV[2]   limit   int   1..10000          about how many keys or entries to look at in this call
-- ARGV[3]   repair  enum  report | repair
-- ARGV[4]   now     ms                      empty: the server's clock
-- COMPUTES  {queue}:items:<group>
-- REPLY     [cursor, checked, [[kind, name, found, expected], ...]]  cursor: empty when done
--                                           length: a group's counter is not its list's length
--                                           since: a group with items has no time, or one without items has
--                                           type: a key of this name holds another type; left as it is
--                                           unknown: a key that no queue has; left as it is
-- ERROR     BADARG                          an argument is out of range
-- REPLAY    yes                             what is mended is no longer found

local groups, since, guard = KEYS[1], KEYS[2], KEYS[3]
local cursor, limit, repair, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 3 or #ARGV ~= 4 then
  return redis.error_reply('BADARG audit takes 3 keys and 4 arguments')
end
local phase, position = string.match(cursor, '^(%a+):(%d+)$')
if phase ~= 'keys' and phase ~= 'groups' and phase ~= 'since' then
  return redis.error_reply('BADARG cursor is ' .. string.sub(cursor, 1, 32) .. ', give keys:0 or the last reply\'s')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 10000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 10000')
end
if repair ~= 'report' and repair ~= 'repair' then
  return redis.error_reply('BADARG repair is ' .. string.sub(repair, 1, 32) .. ', give report or repair')
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

local queue = string.sub(guard, 1, -6)
local types = { groups = 'zset', since = 'zset', grants = 'zset', items = 'list', once = 'string' }
local findings = {}

-- An index of another type hides everything behind it: say so, and look no further.
for _, name in ipairs({ 'groups', 'since' }) do
  local held = redis.call('TYPE', queue .. name).ok
  if held ~= 'none' and held ~= 'zset' then
    findings[#findings + 1] = { 'type', name, held, 'zset' }
  end
end
if #findings > 0 then
  return { '', #findings, findings }
end

local function check(group)
  local items = queue .. 'items:' .. group
  local held = redis.call('TYPE', items).ok
  if held ~= 'list' and held ~= 'none' then
    return
  end
  local length = redis.call('LLEN', items)
  local counted = redis.call('ZSCORE', groups, group) or ''
  local served = redis.call('ZSCORE', since, group) or ''
  if tonumber(counted) ~= length and not (counted == '' and length == 0) then
    findings[#findings + 1] = { 'length', group, counted, length }
  end
  if (served == '') == (length > 0) then
    findings[#findings + 1] = { 'since', group, served, length > 0 and 'a time' or 'none' }
  end
  if repair == 'repair' and length == 0 then
    redis.call('ZREM', groups, group)
    redis.call('ZREM', since, group)
  elseif repair == 'repair' then
    redis.call('ZADD', groups, length, group)
    redis.call('ZADD', since, 'NX', now, group)
  end
end

-- A list that no entry names can be found only among the keys themselves.
local page, checked, following
if phase == 'keys' then
  page = redis.call('SCAN', position, 'COUNT', limit)
  checked, following = #page[2], 'groups:0'
  for _, key in ipairs(page[2]) do
    if string.sub(key, 1, #queue) == queue then
      local name = string.sub(key, #queue + 1)
      local noun, group = string.match(name, '^(%a+):?(.*)$')
      local held = redis.call('TYPE', key).ok
      if not types[noun or ''] then
        findings[#findings + 1] = { 'unknown', name, held, 'none' }
      elseif held ~= types[noun] and held ~= 'none' then
        findings[#findings + 1] = { 'type', name, held, types[noun] }
      elseif noun == 'items' then
        check(group)
      end
    end
  end
else
  page = redis.call('ZSCAN', phase == 'groups' and groups or since, position, 'COUNT', limit)
  checked, following = #page[2] / 2, phase == 'groups' and 'since:0' or ''
  for i = 1, #page[2], 2 do
    check(page[2][i])
  end
end
if page[1] ~= '0' then
  following = phase .. ':' .. page[1]
end
return { following, checked, findings }
