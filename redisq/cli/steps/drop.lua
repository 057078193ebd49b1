-- Drop a piece that was pushed, if it is still the one with this id.
--
-- KEYS   the list where it lies
-- ARGV   its id

if redis.call('LINDEX', KEYS[1], '0') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
