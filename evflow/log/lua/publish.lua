#!lua
-- Publish an event: append it to the log of published events, unless one of its id was published before.
--
-- KEYS: 1 events' log (stream: ids are `<instant in microseconds>-0`)   2 its meta (hash: last, trimmed)
--       3 known ids (zset: id to its instant)
-- ARGV: 1 id  2 the event's bytes  3 for how long events and ids are kept, in microseconds  4 how many events are kept
-- Result: {1, its instant}      {0, the instant of the one that was published before under this id}
-- Atomicity: the check stands before the first write. An instant is this server's time, but always later than that of the event
-- before: it is the event's place. What is too old or too much goes from the log's beginning, at most 100 entries a call;
-- `trimmed` is the instant of the last one that went.

local time = redis.call('TIME')
local now, keep = tonumber(time[1]) * 1000000 + tonumber(time[2]), tonumber(ARGV[3])
local known = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or '')
if known and known > now - keep then
  return {0, known}
end
local last = tonumber(redis.call('HGET', KEYS[2], 'last') or '0')
local at = math.max(now, last + 1)
redis.call('XADD', KEYS[1], string.format('%.0f-0', at), 'i', ARGV[1], 'e', ARGV[2])
redis.call('HSET', KEYS[2], 'last', string.format('%.0f', at))
redis.call('ZADD', KEYS[3], string.format('%.0f', at), ARGV[1])

local old = redis.call('ZRANGE', KEYS[3], '-inf', string.format('%.0f', at - keep), 'BYSCORE', 'LIMIT', 0, 100)
if #old > 0 then
  redis.call('ZREM', KEYS[3], unpack(old))
end
local gone = redis.call('XRANGE', KEYS[1], '-', string.format('%.0f', at - keep), 'COUNT', 100)
local surplus = math.min(redis.call('XLEN', KEYS[1]) - tonumber(ARGV[4]), 100)
if surplus > #gone then
  gone = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', surplus)
end
if #gone > 0 then
  local cut = tonumber(string.match(gone[#gone][1], '^%d+'))
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', cut + 1))
  redis.call('HSET', KEYS[2], 'trimmed', string.format('%.0f', cut))
end
return {1, at}
