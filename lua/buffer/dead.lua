--!df flags=allow-undeclared-keys
-- buffer/dead: show dead letters, the earliest first
--
-- KEYS[1]   dead   zset    {queue}:dead   batch id -> ms at which it was buried
-- KEYS[2]   guard  none    {queue}:guard  never exists: while a cluster moves the slot the server says TRYAGAIN
-- KEYS[3]   layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- ARGV[1]   limit  int     1..1000        how many batches at most; fewer when they hold over 4000 items
-- ARGV[2]   after  string                 id of the last one seen; empty, or no longer dead: from the start
-- COMPUTES  {queue}:batch:<id>
-- REPLY     [[id, died, group, attempts, [item, ...]], ...]  died: ms at which it was buried
-- ERROR     BADARG                        an argument is out of range
-- ERROR     LAYOUT                        these keys are of another layout than this script
-- REPLAY    yes                           it only reads

local dead, guard, layout = KEYS[1], KEYS[2], KEYS[3]
local limit, after = ARGV[1], ARGV[2]

if #KEYS ~= 3 or #ARGV ~= 2 then
  return redis.error_reply('BADARG dead takes 3 keys and 2 arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 1000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 1000')
end

local queue = string.sub(guard, 1, -6)
local rank = redis.call('ZRANK', dead, after)
local start = rank and rank + 1 or 0
local seen = redis.call('ZRANGE', dead, start, start + limit - 1, 'WITHSCORES')
local reply, items = {}, 0
for i = 1, #seen, 2 do
  local batch = queue .. 'batch:' .. seen[i]
  items = items + redis.call('LLEN', batch)
  if items > 4000 and #reply > 0 then
    break
  end
  local group, attempts = unpack(redis.call('LRANGE', batch, 0, 1))
  local first = 2
  if not string.find(attempts or '', '^%d+$') then -- not the beginning of a batch: all of it is shown
    group, attempts, first = '', 0, 0
  end
  reply[#reply + 1] = { seen[i], tonumber(seen[i + 1]), group, tonumber(attempts), redis.call('LRANGE', batch, first, -1) }
end
return reply
