-- steps/take: take what leaves next from a list or sorted set that belongs to no queue, and lay it aside
--
-- KEYS[1]  source  none    <source>                       the list or sorted set
-- KEYS[2]  aside   list    <prefix>:adopting:{<source>}   the piece until it is pushed: id, queue, group, value, ...
-- ARGV[1]  id      string                                 of the piece
-- ARGV[2]  queue   string                                 its prefix, and which structure it is
-- ARGV[3]  group   string                                 empty for a sorted set
-- ARGV[4]  kind    enum    left | right | zset            the end of a list with its newest item, or a sorted set
-- ARGV[5]  count   int     1..1000                        values, at most
-- ARGV[6]  bytes   int     1..524288                      bytes, at most; but one value at least
-- REPLY    [left, [value, ...], time]                     how many the source still has; the piece, empty if there was
--                                                         nothing; the server's clock in ms
-- REPLAY   once                                           a piece that lies there is given again, and no other is taken
--                                                         before it is dropped: who dies meanwhile leaves it so

local call, format = redis.call, string.format
local source, aside = unpack(KEYS)
local id, queue, group, kind, count, bytes = unpack(ARGV)
count, bytes = tonumber(count), tonumber(bytes)
local zset = kind == 'zset'
local time = call('TIME')
time = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local size, width = call(zset and 'ZCARD' or 'LLEN', source), zset and 2 or 1
local before = call('LRANGE', aside, '0', '-1')
if #before > 0 then
  return { size, before, time }
end

-- How large values are is not known before they are read: so they are read in pieces, each twice as long as the last.
local piece, taken, weight, length = { id, queue, group }, 0, 0, 1
while taken < count and weight < bytes do
  length = math.min(length, count - taken)
  local read
  if zset then -- no queue has a score that is infinite: those members stay
    read = call('ZRANGEBYSCORE', source, '(-inf', '(+inf', 'WITHSCORES', 'LIMIT',
      format('%d', taken), format('%d', length))
  elseif kind == 'left' then
    read = call('LRANGE', source, format('%d', -taken - length), format('%d', -taken - 1))
  else
    read = call('LRANGE', source, format('%d', taken), format('%d', taken + length - 1))
  end
  if #read == 0 then
    break
  end
  local first, last, step = 1, #read - width + 1, width
  if kind == 'left' then
    first, last, step = #read, 1, -1
  end
  for i = first, last, step do
    if weight >= bytes then
      break
    end
    for j = i, i + width - 1 do
      piece[#piece + 1] = read[j]
    end
    taken, weight = taken + 1, weight + #read[i]
  end
  length = length * 2
end
if taken == 0 then
  return { size, {}, time }
end

for i = 1, #piece, 1000 do -- first, because a full server refuses this, and then nothing has been taken
  call('RPUSH', aside, unpack(piece, i, math.min(i + 999, #piece)))
end
if zset then
  local members = {}
  for i = 4, #piece, 2 do
    members[#members + 1] = piece[i]
  end
  call('ZREM', source, unpack(members))
elseif kind == 'left' then
  call('LTRIM', source, '0', format('%d', -taken - 1))
else
  call('LTRIM', source, format('%d', taken), '-1')
end
return { size - taken, piece, time }
