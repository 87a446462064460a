#!lua
-- Take a flow's next run number and append the request to the flow's log.
--
-- KEYS: 1 flow's log (stream)   2 flow's meta (hash: seq, runs)
-- ARGV: 1 the event's bytes before its number  2 its bytes behind it  3 the number is larger than this
-- Result: the number
-- Atomicity: number and event are one act: no number is used without a trace, none twice. The caller registers the flow's
-- name (another slot) before this call, so that a crash between the two leaves a flow without runs, never a hidden run.

local meta = redis.call('HMGET', KEYS[2], 'seq', 'runs')
local seq, number = tonumber(meta[1] or '0') + 1, math.max(tonumber(meta[2] or '0'), tonumber(ARGV[3])) + 1
redis.call('XADD', KEYS[1], string.format('%.0f-0', seq), 'e', ARGV[1] .. cmsgpack.pack(number) .. ARGV[2])
redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq), 'runs', string.format('%.0f', number))
return number
