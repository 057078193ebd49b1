-- Restore members of a priority queue. One that is in the queue already is pushed instead: the lower score and the
-- earlier time count, as ever; if it is dead in the file it stays as it is in the queue.
--
-- KEYS   the import's progress, meta, ready, held, delayed, dead, rows, payloads, once (a key that never exists), wake
-- ARGV   the progress that this step begins at, and the one it leads to; order; 1 to give new places (fifo), else 0; now;
--        then of each member: ready, delayed or dead; itself; its score; ms when it is due or died, else 0;
--        "attempts reason"; nothing or = and its payload
-- Reply  the progress; nothing has been done if it was another one
--
-- `inner`, the script in front, is priority/push.

local call, format = redis.call, string.format
local progress, meta, ready, held, delayed, dead, rows, payloads, once, wake = unpack(KEYS)
local from, to, order, anew, now = unpack(ARGV, 1, 5)
local at = call('GET', progress)
if at ~= from then
  return at
end
local names = {}
for i = 6, #ARGV, 6 do
  names[#names + 1] = ARGV[i + 1]
end
call('HLEN', rows)
call('HLEN', payloads)
local tokens, count, known = call('LLEN', wake), #names, {}
if count > 0 then
  local waits, later = call('ZMSCORE', ready, unpack(names)), call('ZMSCORE', delayed, unpack(names))
  local died, leased = call('ZMSCORE', dead, unpack(names)), call('SMISMEMBER', held, unpack(names))
  for i, member in ipairs(names) do
    known[member] = known[member] or waits[i] or later[i] or died[i] or leased[i] == 1
  end
  call('HSET', meta, 'queue', '2 ' .. order) -- first, because a full server refuses this
  call('PERSIST', meta)
end
local fifo, pushes, last = order == 'fifo', {}, 0
local place = fifo and anew == '1' and count > 0 and call('HINCRBY', meta, 'sequence', format('%d', count)) - count
for i = 1, count do
  local state, member, score, time, row, payload = unpack(ARGV, 6 * i, 6 * i + 5)
  local priority = fifo and math.floor(score / 1000000000000)
  if place then
    score = format('%d%012d', priority, (place + i) % 1000000000000)
  end
  if not known[member] then
    known[member], last = true, fifo and math.max(last, score % 1000000000000)
    call('ZADD', state == 'ready' and ready or state == 'delayed' and delayed or dead,
      state == 'ready' and score or time, member)
    if state ~= 'ready' or row ~= '0 ' then
      call('HSET', rows, member, score .. ' ' .. row)
    end
    if payload ~= '' then
      call('HSET', payloads, member, string.sub(payload, 2))
    end
  elseif state ~= 'dead' then
    local delay = state == 'delayed' and math.max(0, time - now) or 0
    local fields = payload == '' and 2 or 3
    pushes[#pushes + 1] = {
      order, 'min', format('%d 0 %d', delay, fields), now, fifo and format('%d', priority - 1024) or score, member,
      fields == 3 and string.sub(payload, 2) or nil,
    }
  end
end
if fifo and last > tonumber(call('HGET', meta, 'sequence') or 0) then -- a live export goes on after it has read it
  call('HSET', meta, 'sequence', format('%d', last))
end
for _, arguments in ipairs(pushes) do
  inner({ meta, ready, once, wake }, arguments)
end
if tokens == 0 and count > #pushes then
  call('LPUSH', wake, '1')
end
call('SET', progress, to, 'PX', '31536000000') -- a year
return to
