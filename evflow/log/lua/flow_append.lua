#!lua
-- Append an event to a flow's log, which has no owner: the expected position decides between two writers.
--
-- KEYS: 1 flow's log (stream)   2 flow's meta (hash: seq, runs, marks)   3 what the event changes beside the log: the flow's tags
--       (hash: run number to packed tags), its deployments (hash: name to packed deployment), its archives (hash: run number to a
--       packed note of where the run's archive is) or its backfills (hash: number to packed backfill)
-- ARGV: 1 expected seq  2 payload  3 field of 3, or '' to change none  4 its value after the event, or '' to remove it
--       5 the positions of all events about deployments, this one among them (packed), or '' where it is none
--       6 field of 3 that must have a value, or '' for none  7 that value, or '' where it must have none
--       A position says where a log ends, and not of which log: a server that lost its last events, and got others, ends there too
-- Result: {1, new seq}      {0, seq found}      {-1, value found, or ''}: it has another value
-- Atomicity: the checks stand before the first write.

local seq = tonumber(redis.call('HGET', KEYS[2], 'seq') or '0')
if seq ~= tonumber(ARGV[1]) then
  return {0, seq}
end
if ARGV[6] ~= '' then
  local found = redis.call('HGET', KEYS[3], ARGV[6]) or ''
  if found ~= ARGV[7] then
    return {-1, found}
  end
end
seq = seq + 1
redis.call('XADD', KEYS[1], string.format('%.0f-0', seq), 'e', ARGV[2])
redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq))
if ARGV[3] ~= '' then
  if ARGV[4] == '' then
    redis.call('HDEL', KEYS[3], ARGV[3])
  else
    redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  end
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], 'marks', ARGV[5])
end
return {1, seq}
