--!df flags=allow-undeclared-keys
-- buffer/audit: find, and on request mend, what disagrees between a queue's keys
--
-- KEYS[1]   meta           hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]   groups         zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]   since          zset    {queue}:since          the same groups -> ms since when they wait
-- KEYS[4]   leases         zset    {queue}:leases         batch id -> ms at which its lease runs out
-- KEYS[5]   delayed        zset    {queue}:delayed        batch id -> ms when it is due again
-- KEYS[6]   dead           zset    {queue}:dead           batch id -> ms at which it was buried
-- KEYS[7]   busy           hash    {queue}:busy           group -> its batch; groups whose items wait until that is over
-- KEYS[8]   paused_groups  zset    {queue}:paused_groups  group -> ms at which its pause ends, or +inf
-- KEYS[9]   guard          none    {queue}:guard          never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]   cursor         string                         keys:0, then the last reply's
-- ARGV[2]   limit          int     1..100                 about how many keys or entries to look at in this call
-- ARGV[3]   repair         enum    report | repair
-- ARGV[4]   horizon        ints                           ms ahead that a time may lie, 0: any, a blank between them:
--             lease          0..99999999999               of a lease's deadline
--             delay          0..99999999999               of a batch's due time
-- ARGV[5]   now            ms                             empty: the server's clock
-- COMPUTES  {queue}:items:<group>, {queue}:batch:<id>, {queue}:wake
-- REPLY     [cursor, checked, [[kind, name, found, expected], ...]]  cursor: empty when done
--             length: a group's counter is not its list's length, or it has one and may not be chosen, or none and may
--             since: the same for the time since when it waits
--             busy: a group waits for a batch that is neither leased nor delayed, or another group's
--             batch: a batch is in no index, or in two, or an index names one that is not there; it keeps its lease,
--             else is due, else is dead
--             header: a batch does not begin with group, attempts, holder, reason; left as it is
--             far: a lease or delay that no setting explains; it ends at the horizon
--             type: a key of this name holds another type; left as it is
--             unknown: a key that no queue has; left as it is
-- ERROR     BADARG                                        an argument is out of range
-- ERROR     LAYOUT                                        the queue's mark is not 2 buffer
-- REPLAY    yes                                           what is mended is no longer found

local call = redis.call
local meta, groups, since, leases, delayed, dead, busy, paused_groups = unpack(KEYS)
local cursor, limit, repair, horizon, now = unpack(ARGV)
local indexes = { groups = groups, since = since, leases = leases, delayed = delayed, dead = dead, busy = busy }
local phase, position = string.match(cursor or '', '^(%a+):(%d+)$')
local lease_ahead, delay_ahead = string.match(horizon or '', '^(%d+) (%d+)$')
if #KEYS ~= 9 or #ARGV ~= 5
  or phase ~= 'keys' and not indexes[phase or ''] or #position > 18 or #limit > 3 or not string.find(limit, '^[1-9]%d*$')
  or tonumber(limit) > 100 or repair ~= 'report' and repair ~= 'repair'
  or not lease_ahead or #lease_ahead > 11 or #delay_ahead > 11
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': audit takes 9 keys, keys:0 or the last cursor, 1..100, report or repair, "lease delay", ms since 1970 or nothing')
end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue, findings = string.sub(meta, 1, -5), {}
local types = {
  meta = 'hash', groups = 'zset', since = 'zset', leases = 'zset', delayed = 'zset', dead = 'zset', busy = 'hash',
  paused_groups = 'zset',
}
local function found(kind, name, is, expected)
  findings[#findings + 1] = { kind, name, is, expected }
  return repair == 'repair'
end

-- A key of another type hides everything behind it: say so, and look no further.
for name, expected in pairs(types) do
  local held = call('TYPE', queue .. name).ok
  if held ~= expected and held ~= 'none' then
    found('type', name, held, expected)
  end
end
if #findings > 0 then
  return { '', #findings, findings }
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
types.items, types.batch, types.wake, types.grants = 'list', 'list', 'list', 'zset'
types.once, types.ended, types.paused = 'string', 'string', 'string'

local function list_length(key)
  local held = call('TYPE', key).ok
  return (held == 'list' or held == 'none') and call('LLEN', key)
end

local function check_group(group)
  local length = list_length(queue .. 'items:' .. group)
  if not length then
    return
  end
  local batch = call('HGET', busy, group)
  if batch and (not call('ZSCORE', leases, batch) and not call('ZSCORE', delayed, batch)
    or list_length(queue .. 'batch:' .. batch) and (call('LINDEX', queue .. 'batch:' .. batch, '0') or group) ~= group)
    and found('busy', group, batch, 'a batch that is leased or delayed') then
    batch = call('HDEL', busy, group) == 0
  end
  if batch or call('ZSCORE', paused_groups, group) then
    length = 0 -- whatever it has, it may not be chosen
  end
  -- What agrees is not written: a full server would refuse an audit that has nothing to mend.
  for kind, index in pairs({ length = groups, since = since }) do
    local is = call('ZSCORE', index, group)
    if (is or length > 0) and (not is or length == 0 or kind == 'length' and tonumber(is) ~= length)
      and found(kind, group, is or '', length) then
      call('ZREM', index, group)
      if length > 0 then
        call('ZADD', index, kind == 'length' and string.format('%d', length) or now, group)
      end
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
    local time = call('ZSCORE', indexes[index], id)
    places[#places + 1] = time and index or nil
    local ahead = index == 'leases' and lease_ahead or index == 'delayed' and delay_ahead or '0'
    local last = string.format('%d', now + ahead)
    if time and ahead ~= '0' and tonumber(time) > tonumber(last) and found('far', id, time, last) then
      call('ZADD', indexes[index], last, id)
    end
  end
  if length > 0 and #places ~= 1 and found('batch', id, table.concat(places, ' '), 'one index') then
    if #places == 0 then
      call('ZADD', delayed, now, id)
    end
    for i = 2, #places do
      call('ZREM', indexes[places[i]], id)
    end
  elseif length == 0 and #places > 0 and found('batch', id, 'none', table.concat(places, ' ')) then
    for _, index in ipairs(places) do
      call('ZREM', indexes[index], id)
    end
  end
  if length > 0 and (length < 5 or not string.find(call('LINDEX', key, '1'), '^%d+$')) then
    found('header', id, call('LINDEX', key, '0'), 'group, attempts, holder, reason, items')
  end
end

-- A list that no index names can be found only among the keys themselves.
local page, checked
if phase == 'keys' then
  page = call('SCAN', position, 'COUNT', limit)
  checked = #page[2]
  for _, key in ipairs(page[2]) do
    if string.sub(key, 1, #queue) == queue then
      local name = string.sub(key, #queue + 1)
      local noun, rest = string.match(name, '^([%a_]+):?(.*)$')
      local held = call('TYPE', key).ok
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
  page = call(phase == 'busy' and 'HSCAN' or 'ZSCAN', indexes[phase], position, 'COUNT', limit)
  checked = #page[2] / 2
  local check = (phase == 'groups' or phase == 'since' or phase == 'busy') and check_group or check_batch
  for i = 1, #page[2], 2 do
    check(page[2][i])
  end
end
local following = { -- groups come last: which of them may be chosen depends on the batches
  keys = 'leases:0', leases = 'delayed:0', delayed = 'dead:0', dead = 'groups:0', groups = 'since:0', since = 'busy:0',
  busy = '',
}
cursor = page[1] == '0' and following[phase] or phase .. ':' .. page[1]
if cursor == '' and repair == 'repair' then -- what was mended may have been all that there was
  -- idiom: buffer drained
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
end
return { cursor, checked, findings }
