--!df flags=allow-undeclared-keys
-- priority/pop: take the most urgent members and forget them
--
-- KEYS[1]  meta   hash  {queue}:meta   the queue's mark and counters
-- KEYS[2]  ready  zset  {queue}:ready  member -> score, the lowest leaves first
-- KEYS[3]  wake   list  {queue}:wake   a wake-up for blocked clients
-- KEYS[4]  guard  none  {queue}:guard  never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  order  enum  fifo | score   the order that the caller reads the scores by
-- ARGV[2]  count  int   1..1000        members at most
-- ARGV[3]  now    ms                   empty: the server's clock
-- COMPUTES {queue}:leases, {queue}:delayed, {queue}:dead, {queue}:rows, {queue}:payloads, {queue}:paused
-- REPLY    [retry, [member, score, ...], [row, ...], [payload, ...]]  row: "score attempts reason", attempts: hand-overs
--            before this one; row and payload: nil where there is none, or the list is empty; nothing taken: ask again in
--            retry ms, -1: after a wake-up
-- ERROR    BADARG                      an argument is out of range
-- ERROR    LAYOUT                      the queue's mark is not 2 fifo or 2 score
-- ERROR    WRONGORDER                  the queue is kept in the other order
-- REPLAY   no                          a second run takes other members: where that matters, reserve

local call = redis.call
local meta, ready, wake = unpack(KEYS)
local order, count, now = unpack(ARGV)
if #KEYS ~= 4 or #ARGV ~= 3
  or order ~= 'fifo' and order ~= 'score' or #count > 4 or not string.find(count, '^[1-9]%d*$') or tonumber(count) > 1000
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': pop takes 4 keys, fifo or score, 1..1000, ms since 1970 or nothing')
end
-- idiom: order
local mark = call('HGET', meta, 'queue')
local kept = mark or call('EXISTS', ready) == 1 and '2 score' -- a plain sorted set is taken as it is
if kept and kept ~= '2 ' .. order then
  local code = (kept == '2 fifo' or kept == '2 score') and 'WRONGORDER' or 'LAYOUT'
  return redis.error_reply(code .. ' this queue is marked ' .. string.sub(kept, 1, 32) .. ', the call is for 2 ' .. order)
end
-- end
local queue, tokens = string.sub(meta, 1, -5), call('LLEN', wake)
local delayed, rows, payloads, paused = queue .. 'delayed', queue .. 'rows', queue .. 'payloads', queue .. 'paused'
local special = call('EXISTS', rows, payloads, paused) > 0 -- what is delayed has a row
if special then
  -- idiom: clock
  if now == '' then
    local time = call('TIME')
    now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
  end
  -- end
  -- idiom: paused
  local pause = call('GET', paused)
  local ends = pause and tonumber(string.match(pause, '^%d+'))
  local stopped = ends and (ends == 0 or ends > tonumber(now))
  -- end
  if stopped then
    return { ends > 0 and ends - now or -1, {}, {}, {} }
  end
  local max_attempts = '0' -- whoever pops and forgets counts no attempts
  call('HLEN', rows)
  call('HLEN', payloads)
  call('ZCARD', ready)
  -- idiom: promote
  local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', '0', '100')
  local ripe, forgotten, buried, deaths = {}, {}, {}, {}
  for i, row in ipairs(#due > 0 and call('HMGET', rows, unpack(due)) or {}) do
    local score, attempts, reason = string.match(row or '0 0 ', '^(%S+) (%d+) (.*)$')
    if max_attempts ~= '0' and tonumber(attempts) >= tonumber(max_attempts) then
      buried[#buried + 1] = due[i]
      deaths[#deaths + 1], deaths[#deaths + 2] = now, due[i]
    else
      ripe[#ripe + 1], ripe[#ripe + 2] = score, due[i]
      forgotten[#forgotten + 1] = attempts == '0' and reason == '' and due[i] or nil
    end
  end
  for _, write in ipairs({ { 'ZREM', delayed, due }, { 'ZADD', ready, ripe }, { 'HDEL', rows, forgotten } }) do
    if #write[3] > 0 then
      call(write[1], write[2], unpack(write[3]))
    end
  end
  -- end
end

local taken, about = call('ZPOPMIN', ready, count), { {}, {} }
if special and #taken > 0 then
  local members = {}
  for i = 1, #taken, 2 do
    members[#members + 1] = taken[i]
  end
  for i, key in ipairs({ rows, payloads }) do
    if call('EXISTS', key) == 1 then
      about[i] = call('HMGET', key, unpack(members))
      call('HDEL', key, unpack(members))
    end
  end
end
if call('EXISTS', ready) == 1 then
  if tokens == 0 then
    call('LPUSH', wake, '1') -- there is more: whoever waits next is to look
  end
  return { 0, taken, about[1], about[2] }
end
local retry = 0
if #taken == 0 then
  local first = special and call('ZRANGE', delayed, '0', '0', 'WITHSCORES')[2]
  retry = first and math.max(0, first - now) or -1
end
-- idiom: priority drained
if call('EXISTS', queue .. 'ready', queue .. 'leases', queue .. 'delayed', queue .. 'dead') == 0 then
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  call('HDEL', meta, 'sequence') -- nobody is left to be overtaken: places start anew
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
end
-- end
return { retry, taken, about[1], about[2] }
