#!lua
-- Put a report into a shard's inbox, unless its run is sealed: then nobody would ever take it out.
--
-- KEYS: 1 inbox (stream)   2 run's meta (hash)
-- ARGV: 1 run  2 payload
-- Result: the entry's id, or false where the run is sealed (counted in its meta as dropped:late)
-- Atomicity: the check and the one write are one act. The inbox has no MAXLEN: a report must not be lost.

if redis.call('HGET', KEYS[2], 'status') == 'sealed' then
  redis.call('HINCRBY', KEYS[2], 'dropped:late', 1)
  return false
end
return redis.call('XADD', KEYS[1], '*', 'r', ARGV[1], 'p', ARGV[2])
