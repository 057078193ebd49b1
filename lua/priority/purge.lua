-- priority/purge: throw away every member, its order and its sequence
--
-- KEYS[1]  ready  zset  {queue}:ready  member -> score
-- KEYS[2]  later  zset  {queue}:later  member -> ms when it is ready again, +inf when dead
-- KEYS[3]  rows   hash  {queue}:rows   member -> score attempts asked asked_due owner
-- KEYS[4]  meta   hash  {queue}:meta   order, sequence
-- KEYS[5]  wake   list  {queue}:wake   a token for who waits
-- KEYS[6]  layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- REPLY    [more, members]             more: 0, one call is enough; members: how many were thrown away
-- ERROR    BADARG                      a key is missing
-- ERROR    LAYOUT                      these keys are of another layout than this script
-- REPLAY   yes                         what is gone is gone; a second run counts only what it finds itself

local ready, later, rows, meta, wake, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

if #KEYS ~= 6 or #ARGV ~= 0 then
  return redis.error_reply('BADARG purge takes 6 keys and no arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end

redis.call('HLEN', rows)
redis.call('HLEN', meta)
redis.call('LLEN', wake)
local count = redis.call('ZCARD', ready) + redis.call('ZCARD', later)
-- UNLINK frees in the background: the server is not held, however many there are.
redis.call('UNLINK', ready, later, rows, meta, wake, layout)
return { 0, count }
