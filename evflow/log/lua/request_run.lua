#!lua
-- Take a flow's next run number and append the request to the flow's log.
--
-- KEYS: 1 flow's log (stream)   2 flow's meta (hash: seq, runs)   3 what it changes beside the log: the flow's
--       deployments (hash: name to packed deployment) or backfills (hash: number to packed backfill)
-- ARGV: 1 the event's bytes before its number  2 its bytes behind it  3 the number is larger than this
--         or '' where nobody has asked what was before: then a flow without a number gets none
--       4 expected seq, or '' for any  5 field of 3, or '' to change none  6 its value after the event
--       7 field of 3 that must have a value, or '' for none  8 that value
--       A position says where a log ends, and not of which log: a server that lost its last events, and got others, ends there too
-- Result: {1, number}      {0, seq found}      {-1, value found, or ''}: it has another value      {-2, 0}: no number was ever taken
-- Atomicity: the checks stand before the first write; number, event and deployment are one act: no number is used without a
-- trace, none twice. The caller registers the flow's name (another slot) before this call, so that a crash between the two
-- leaves a flow without runs, never a hidden run.

local meta = redis.call('HMGET', KEYS[2], 'seq', 'runs')
local seq, number = tonumber(meta[1] or '0'), math.max(tonumber(meta[2] or '0'), tonumber(ARGV[3]) or 0) + 1
if ARGV[4] ~= '' and seq ~= tonumber(ARGV[4]) then
  return {0, seq}
end
if ARGV[7] ~= '' then
  local found = redis.call('HGET', KEYS[3], ARGV[7]) or ''
  if found ~= ARGV[8] then
    return {-1, found}
  end
end
if ARGV[3] == '' and number == 1 then
  return {-2, 0}
end
seq = seq + 1
redis.call('XADD', KEYS[1], string.format('%.0f-0', seq), 'e', ARGV[1] .. cmsgpack.pack(number) .. ARGV[2])
redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq), 'runs', string.format('%.0f', number))
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
end
return {1, number}
