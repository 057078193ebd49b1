-- steps/members: restore members of a priority queue; one that is there already is pushed
--
-- KEYS[1]   progress  string  {queue}:once:import-<file>  how many lines are restored, after "merge" or not
-- KEYS[2]   meta      hash    {queue}:meta                the queue's mark, counters and last place
-- KEYS[3]   ready     zset    {queue}:ready               member -> score
-- KEYS[4]   held      set     {queue}:held                members that are leased
-- KEYS[5]   delayed   zset    {queue}:delayed             member -> ms when it is due
-- KEYS[6]   dead      zset    {queue}:dead                member -> ms when it died
-- KEYS[7]   rows      hash    {queue}:rows                member -> score, attempts, reason
-- KEYS[8]   payloads  hash    {queue}:payloads            member -> payload
-- KEYS[9]   once      string  {queue}:once:import         of the push; never exists
-- KEYS[10]  wake      list    {queue}:wake                a wake-up for blocked clients
-- ARGV[1]   from      string                              the progress at which this step begins
-- ARGV[2]   to        string                              the progress to which it leads
-- ARGV[3]   order     enum    fifo | score
-- ARGV[4]   anew      enum    0 | 1                       1: give new places (fifo)
-- ARGV[5]   now       ms
-- ARGV[6+]  field     bytes   0..600                      so many of them, six a member: ready, delayed or dead;
--                                                         itself; its score; ms when it is due or died, else 0;
--                                                         "attempts reason"; nothing, or = and its payload
-- REPLY     progress                                      `to`, or where the import is: then nothing has been done
-- REPLAY    once                                          it begins at one progress, and ends that
--
-- `inner`, the script in front, is priority/push: of a member that is there the lower score and the earlier time count,
-- as ever. One that is dead in the file stays as it is in the queue.

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
