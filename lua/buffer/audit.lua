--!df flags=allow-undeclared-keys
-- buffer/audit: find, and on request mend, what disagrees between a queue's keys
--
-- KEYS[1]   groups   zset  {queue}:groups   group -> waiting length
-- KEYS[2]   since    zset  {queue}:since    group -> ms it became non-empty or was last served
-- KEYS[3]   leases   zset  {queue}:leases   batch id -> ms at which its lease runs out
-- KEYS[4]   delayed  zset  {queue}:delayed  batch id -> ms when it is due again
-- KEYS[5]   dead     zset  {queue}:dead     batch id -> ms at which it was buried
-- KEYS[6]   guard    none  {queue}:guard    never exists: while a cluster moves the slot the server says TRYAGAIN
-- KEYS[7]   layout   string  {queue}:layout   the layout of these keys: 1, or absent
-- ARGV[1]   cursor   string                 start with keys:0, then the last reply's cursor
-- ARGV[2]   limit    int   1..200           about how many keys or entries to look at in this call
-- ARGV[3]   repair   enum  report | repair
-- ARGV[4]   now      ms                     empty: the server's clock
-- COMPUTES  {queue}:items:<group>
-- COMPUTES  {queue}:batch:<id>
-- REPLY     [cursor, checked, [[kind, name, found, expected], ...]]  cursor: empty when done
--                                           length: a group's counter is not its list's length
--                                           since: a group with items has no time, or one without items has
--                                           batch: a batch is in no index, or in two, or an index names one that is
--                                           not there; it keeps its lease, else is due, else is dead
--                                           header: a batch does not begin with a group and attempts; left as it is
--                                           type: a key of this name holds another type; left as it is
--                                           unknown: a key that no queue has; left as it is
-- ERROR     BADARG                          an argument is out of range
-- ERROR     LAYOUT                          these keys are of another layout than this script
-- REPLAY    yes                             what is mended is no longer found

local groups, since, leases, delayed, dead, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local layout = KEYS[7]
local cursor, limit, repair, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 7 or #ARGV ~= 4 then
  return redis.error_reply('BADARG audit takes 7 keys and 4 arguments')
end
local indexes = { groups = groups, since = since, leases = leases, delayed = delayed, dead = dead }
local phase, position = string.match(cursor, '^(%a+):(%d+)$')
if phase ~= 'keys' and not indexes[phase or ''] then
  return redis.error_reply('BADARG cursor is ' .. string.sub(cursor, 1, 32) .. ', give keys:0 or the last reply\'s')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 200 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 200')
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
local types = { layout = 'string', groups = 'zset', since = 'zset', leases = 'zset', delayed = 'zset', dead = 'zset' }
local findings = {}
local function found(kind, name, is, expected)
  findings[#findings + 1] = { kind, name, is, expected }
  return repair == 'repair'
end

-- A key of another type hides everything behind it: say so, and look no further.
for name, expected in pairs(types) do
  local held = redis.call('TYPE', queue .. name).ok
  if held ~= expected and held ~= 'none' then
    found('type', name, held, expected)
  end
end
if #findings > 0 then
  return { '', #findings, findings }
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
types.items, types.batch, types.wake, types.grants = 'list', 'list', 'list', 'zset'
types.once, types.ended = 'string', 'string'

local function list_length(key)
  local held = redis.call('TYPE', key).ok
  return (held == 'list' or held == 'none') and redis.call('LLEN', key)
end

local function check_group(group)
  local length = list_length(queue .. 'items:' .. group)
  if not length then
    return
  end
  local counted = redis.call('ZSCORE', groups, group) or ''
  local served = redis.call('ZSCORE', since, group) or ''
  -- What agrees is not written: a full server would refuse an audit that has nothing to mend.
  if tonumber(counted) ~= length and not (counted == '' and length == 0) and found('length', group, counted, length) then
    redis.call('ZREM', groups, group)
    if length > 0 then
      redis.call('ZADD', groups, length, group)
    end
  end
  if (served == '') == (length > 0) and found('since', group, served, length > 0 and 'a time' or 'none') then
    redis.call('ZREM', since, group)
    if length > 0 then
      redis.call('ZADD', since, now, group)
    end
  end
end

local function check_batch(id)
  local key = queue .. 'batch:' .. id
  local length = list_length(key)
  if not length then
    return
  end
  local places = {}
  for _, index in ipairs({ 'leases', 'delayed', 'dead' }) do
    if redis.call('ZSCORE', indexes[index], id) then
      places[#places + 1] = index
    end
  end
  if length > 0 and #places ~= 1 and found('batch', id, table.concat(places, ' '), 'one index') then
    if #places == 0 then
      redis.call('ZADD', delayed, now, id)
    end
    for i = 2, #places do
      redis.call('ZREM', indexes[places[i]], id)
    end
  elseif length == 0 and #places > 0 and found('batch', id, 'none', table.concat(places, ' ')) then
    for _, index in ipairs(places) do
      redis.call('ZREM', indexes[index], id)
    end
  end
  if length > 0 and (length < 2 or not string.find(redis.call('LINDEX', key, 1), '^%d+$')) then
    found('header', id, redis.call('LINDEX', key, 1) or '', 'a group and attempts')
  end
end

-- A list that no index names can be found only among the keys themselves.
local page, checked
if phase == 'keys' then
  page = redis.call('SCAN', position, 'COUNT', limit)
  checked = #page[2]
  for _, key in ipairs(page[2]) do
    if string.sub(key, 1, #queue) == queue then
      local name = string.sub(key, #queue + 1)
      local noun, rest = string.match(name, '^(%a+):?(.*)$')
      local held = redis.call('TYPE', key).ok
      if not types[noun or ''] then
        found('unknown', name, held, 'none')
      elseif held ~= types[noun] and held ~= 'none' then
        found('type', name, held, types[noun])
      elseif noun == 'items' then
        check_group(rest)
      elseif noun == 'batch' then
        check_batch(rest)
      end
    end
  end
else
  page = redis.call('ZSCAN', indexes[phase], position, 'COUNT', limit)
  checked = #page[2] / 2
  for i = 1, #page[2], 2 do
    if phase == 'groups' or phase == 'since' then
      check_group(page[2][i])
    else
      check_batch(page[2][i])
    end
  end
end
local following = { keys = 'groups:0', groups = 'since:0', since = 'leases:0', leases = 'delayed:0', delayed = 'dead:0' }
if page[1] ~= '0' then
  return { phase .. ':' .. page[1], checked, findings }
end
return { following[phase] or '', checked, findings }
