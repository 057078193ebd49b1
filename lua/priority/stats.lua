-- priority/stats: count the members of each state, a bounded number a call
--
-- KEYS[1]  ready  zset  {queue}:ready   member -> score
-- KEYS[2]  later  zset  {queue}:later   member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows   hash  {queue}:rows    member -> score attempts asked asked_due owner
-- KEYS[4]  layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- ARGV[1]  start  int   0..             rank of the first member of later to look at: 0, then the last reply's next
-- ARGV[2]  limit  int   1..1000         members of later to look at in this call
-- REPLY    [next, leased, expiry, ready, parked, dead]  next: -1 when done; leased: among those looked at;
--                                       expiry: ms of the first lease among them, -1 if none;
--                                       parked: delayed and leased together
-- ERROR    BADARG                       an argument is out of range
-- ERROR    LAYOUT                       these keys are of another layout than this script
-- REPLAY   yes                          it only reads

local ready, later, rows, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local start, limit = ARGV[1], ARGV[2]

if #KEYS ~= 4 or #ARGV ~= 2 then
  return redis.error_reply('BADARG stats takes 4 keys and 2 arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(start, '^%d+$') or #start > 15 then
  return redis.error_reply('BADARG start is ' .. string.sub(start, 1, 32) .. ', give 0 or the next of the last reply')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 1000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 1000')
end

redis.call('HLEN', rows)
local dead = redis.call('ZCOUNT', later, '+inf', '+inf')
local parked = redis.call('ZCARD', later) - dead
-- The dead stand behind the parked; a range that ended at -1 would be all of them.
local last = math.min(start + limit, parked)
local page = start + 0 < last and redis.call('ZRANGE', later, start, last - 1, 'WITHSCORES') or {}
local leased, expiry = 0, -1
for i = 1, #page, 2 do
  local row = redis.call('HGET', rows, page[i])
  if row and string.match(row, '^%S+ %S+ %S+ %S+ (.*)$') ~= '' then
    leased = leased + 1
    if expiry == -1 then
      expiry = tonumber(page[i + 1])
    end
  end
end

local following = start + limit
if following >= parked then
  following = -1
end
return { following, leased, expiry, redis.call('ZCARD', ready), parked, dead }
