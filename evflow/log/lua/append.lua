#!lua
-- Append whole turns to a run's log: fenced, at an expected head, with the consumption of their reports.
--
-- KEYS: 1 lease (hash)   2 run's stream   3 run's meta (hash)   4 inbox (stream)   5 feed (stream)
--       6 active (set)   7 timers (zset)
-- ARGV: 1 owner  2 epoch  3 run  4 expected seq  5 expected digest (32 bytes)  6 new digest (32 bytes)
--       7 status ('active' or 'sealed')  8 wake-up in microseconds or ''
--       9 number of events  10 number of consumed ids  11 number of drop reasons
--       12.. for each event: payload, link (16 bytes); then the consumed ids; then for each reason: name, count
-- Result: {'ok', seq}                          appended, or found to be appended already by this very call
--         {'lease', owner, epoch}                     the caller does not own the shard
--         {'head', seq, digest, status}        the log ends elsewhere, or is sealed
-- Atomicity: every check stands before the first write, because Redis rolls nothing back. No flag is declared: a server
-- that is out of memory or is a replica refuses the script as a whole.

local MAX_EVENTS, MAX_CONSUMED, MAX_BYTES, FEED_LENGTH = 1000, 1000, 1000000, 10000
local FIRST = 12

local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return {'lease', lease[1] or '', lease[2] or '0'}
end

local run, expected, status, wake = ARGV[3], tonumber(ARGV[4]), ARGV[7], ARGV[8]
local events, consumed, reasons = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
if #ARGV ~= FIRST - 1 + 2 * events + consumed + 2 * reasons then
  return redis.error_reply('ERR append: the number of arguments does not match their counts')
end
if events > MAX_EVENTS or consumed > MAX_CONSUMED then
  return redis.error_reply('ERR append: over the limit of events or consumed ids in one call')
end
local bytes = 0
for i = FIRST, FIRST + 2 * events - 1, 2 do
  bytes = bytes + #ARGV[i]
end
if bytes > MAX_BYTES then
  return redis.error_reply('ERR append: over the limit of bytes in one call')
end

local meta = redis.call('HMGET', KEYS[3], 'seq', 'digest', 'status')
local seq, digest = tonumber(meta[1] or '0'), meta[2] or string.rep('\0', 32)
local repeated = events > 0 and seq == expected + events and digest == ARGV[6]
if not repeated and (seq ~= expected or digest ~= ARGV[5] or (meta[3] == 'sealed' and events > 0)) then
  return {'head', seq, digest, meta[3] or 'active'}
end

if not repeated and events > 0 then
  local argument = FIRST
  for position = expected + 1, expected + events do
    redis.call('XADD', KEYS[2], string.format('%.0f-0', position), 'e', ARGV[argument], 'h', ARGV[argument + 1])
    argument = argument + 2
  end
  seq = expected + events
  redis.call('HSET', KEYS[3], 'seq', string.format('%.0f', seq), 'digest', ARGV[6], 'status', status)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', FEED_LENGTH, '*', 'r', run, 's', string.format('%.0f', seq))
end

local removed = 0
if consumed > 0 then
  local first = FIRST + 2 * events
  removed = redis.call('XDEL', KEYS[4], unpack(ARGV, first, first + consumed - 1))
end
-- A repeat removes nothing; so nothing is counted twice.
if removed > 0 then
  for i = FIRST + 2 * events + consumed, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[3], 'dropped:' .. ARGV[i], ARGV[i + 1])
  end
end

if status == 'sealed' then
  redis.call('SREM', KEYS[6], run)
  redis.call('ZREM', KEYS[7], run)
else
  if seq > 0 then
    redis.call('SADD', KEYS[6], run)
  end
  if wake == '' then
    redis.call('ZREM', KEYS[7], run)
  else
    redis.call('ZADD', KEYS[7], wake, run)
  end
end
return {'ok', seq}
