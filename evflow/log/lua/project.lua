#!lua
-- Write anew what is kept beside a flow's log, for a log that ends where the writer folded it to.
--
-- KEYS: 1 flow's meta (hash: seq, runs)   2 flow's tags (hash)   3 flow's deployments (hash)   4 flow's backfills (hash)
-- ARGV: 1 expected seq  2 the run counter is at least this  3 number of tags  4 number of deployments
--       5.. for each: run number, packed tags; then for each deployment: name, packed deployment or ''; then for each backfill:
--       number, packed backfill
-- Result: {1, seq}      {0, seq found}
-- Atomicity: the check stands before the first write: an event between the fold and the write is never undone.

local meta = redis.call('HMGET', KEYS[1], 'seq', 'runs')
local seq = tonumber(meta[1] or '0')
if seq ~= tonumber(ARGV[1]) then
  return {0, seq}
end
if tonumber(meta[2] or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'runs', ARGV[2])
end
local behind_tags = 5 + 2 * tonumber(ARGV[3])
local behind_deployments = behind_tags + 2 * tonumber(ARGV[4])
for i = 5, #ARGV, 2 do
  local key = i < behind_tags and KEYS[2] or i < behind_deployments and KEYS[3] or KEYS[4]
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
return {1, seq}
