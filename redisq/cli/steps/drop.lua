-- steps/drop: drop a piece that was pushed, if it is still the one with this id
--
-- KEYS[1]  aside  list    <prefix>:adopting:{<source>}  the piece: its id, queue, group, value, ...
-- ARGV[1]  id     string                                its id
-- REPLY    0 | 1                                        whether it was dropped
-- REPLAY   yes                                          a piece that was laid aside since has another id

if redis.call('LINDEX', KEYS[1], '0') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
