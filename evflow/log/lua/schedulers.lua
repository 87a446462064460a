#!lua
-- Say that a scheduler lives, or that it ends, and ask which ones there are.
--
-- KEYS: 1 schedulers (zset: name, until when in microseconds of this server)
-- ARGV: 1 name or ''  2 for how long it counts as living, in microseconds; 0 for its end
-- Result: the names of those that live, in order
-- Atomicity: one act. Time is this server's alone. Whoever seems to live for more than five minutes said so before the clock went back: it says it
-- again within a second, if it lives.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if ARGV[1] ~= '' then
  if ARGV[2] == '0' then
    redis.call('ZREM', KEYS[1], ARGV[1])
  else
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + 300000000), '+inf')
local names = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(names)
return names
