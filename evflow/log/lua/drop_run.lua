#!lua
-- Remove a sealed run's log, which was archived, and remember its end for a while.
--
-- KEYS: 1 run's stream   2 run's meta (hash)   3 shard's active (set)   4 shard's timers (zset)   5 shard's inbox (stream)   6 shard's feed
-- ARGV: 1 run  2 seq of the archived log  3 its digest (32 bytes)  4 how long the end is remembered, in milliseconds; 0: not at all
--       5 '1' if the shard is this run's alone
-- Result: 1 nothing of the log is left      0 the log ends elsewhere, or is not sealed: nothing was done
-- Atomicity: the check stands before the first write. What is remembered (the meta) makes late reports and late owners see a sealed run,
-- as before; it goes by itself.

local meta = redis.call('HMGET', KEYS[2], 'seq', 'digest', 'status')
if meta[1] and (meta[1] ~= ARGV[2] or meta[2] ~= ARGV[3] or meta[3] ~= 'sealed') then
  return 0
end
if not meta[1] and redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('UNLINK', KEYS[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if ARGV[4] == '0' then
  redis.call('UNLINK', KEYS[2])
elseif redis.call('PTTL', KEYS[2]) == -1 then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if ARGV[5] == '1' then
  redis.call('UNLINK', KEYS[5], KEYS[6])
end
return 1
