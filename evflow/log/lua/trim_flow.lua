#!lua
-- Remove the old part of a flow's log, which was archived, and note where it is.
--
-- KEYS: 1 flow's log (stream)   2 flow's archives (hash: run number, or 'log:<segment>', to packed note)
-- ARGV: 1 field of 2  2 its value  3 the last position that goes
-- Result: 1
-- Atomicity: the note and the removal are one act. A note that is there stays: the first archive of a segment is the one that readers use.

redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', tonumber(ARGV[3]) + 1))
return 1
