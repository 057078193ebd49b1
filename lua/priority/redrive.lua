-- priority/redrive: give dead members another life, ready with no attempts
--
-- KEYS[1]   ready   zset    {queue}:ready      member -> score
-- KEYS[2]   later   zset    {queue}:later      member -> ms when it is ready again, +inf when dead
-- KEYS[3]   rows    hash    {queue}:rows       member -> score attempts asked asked_due owner
-- KEYS[4]   once    string  {queue}:once:<id>  the answer that this call gave
-- KEYS[5]   wake    list    {queue}:wake       a token for who waits
-- KEYS[6]   layout  string  {queue}:layout     the layout of these keys: 1, or absent
-- ARGV[1]   window  int     0..604800000       ms that the answer is remembered, 0: not at all
-- ARGV[2+]  member  bytes   0..1000 of them
-- REPLY     count  how many were dead; others are passed over
-- ERROR     BADARG  an argument is out of range
-- ERROR     LAYOUT  these keys are of another layout than this script
-- REPLAY    once  the same id within the window: nothing more, the same answer

local ready, later, rows, once, wake, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local window = ARGV[1]

if #KEYS ~= 6 or #ARGV < 1 or #ARGV > 1001 then
  return redis.error_reply('BADARG redrive takes 6 keys, 1 argument and at most 1000 members')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end

-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

redis.call('ZCARD', ready)
redis.call('HLEN', rows)
local tokens = redis.call('LLEN', wake)
local dues = #ARGV > 1 and redis.call('ZMSCORE', later, unpack(ARGV, 2)) or {}
local old = #ARGV > 1 and redis.call('HMGET', rows, unpack(ARGV, 2)) or {}
local members, places, seen = {}, {}, {}
for i, due in ipairs(dues) do
  local member = ARGV[i + 1]
  if tonumber(due or 0) == math.huge and not seen[member] then
    local score = string.match(old[i] or '', '^(%S+) ')
    if not tonumber(score) or tonumber(score) - tonumber(score) ~= 0 then
      score = 0 -- a row that cannot be read must not cost the member
    end
    seen[member], members[#members + 1] = true, member
    places[#places + 1], places[#places + 2] = score, member
  end
end
answer = #members
-- A write that frees, though there is nothing to free: after it a full server takes the rest.
redis.call('DEL', once)
if answer > 0 then
  redis.call('ZREM', later, unpack(members))
  redis.call('ZADD', ready, unpack(places))
  redis.call('HDEL', rows, unpack(members))
end
if answer > 0 and tokens == 0 then
  redis.call('LPUSH', wake, 1)
end
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
