#!lua
-- Order attempts of a pool, or take one back.
--
-- KEYS: 1 queue (stream)   2 waiting (hash: attempt to entry)   3 claims (hash: attempt to '<microseconds> <worker>')
--       4 workers (zset: name, until when)   5 fences (hash: shard to '<epoch> <number>'; '' to the number of all orders;
--         '@' to the instant of the last call of `pool_life.lua`, which says how time is reckoned)
--       6 ranks (zset: attempt, its place among those that wait)
-- ARGV: 1 'order' or 'cancel'  2 shard  3 epoch of its owner
--       order:  4 number of this call, rising within an epoch   5.. for each attempt: its name, its order, its priority
--       cancel: 4 attempt   5 grace in milliseconds   6 how the names of the workers' own streams begin
-- Result: {'ok'}                 ordered, by this call or by an earlier one with this number
--         {'fenced', epoch}      the shard has a newer owner: nothing was done
--         {'withdrawn'}          cancel: no worker had it, and none will
--         {'told', worker}       cancel: a living worker has it and will end it
--         {'lost', worker}       cancel: the worker that has it is dead
--         {'unknown'}            cancel: it is neither waiting nor claimed
-- Atomicity: an attempt is ordered once, whatever is repeated: the number of the last call is kept, since an attempt of a repeated
-- call may be over already and so be known to nobody. Time is this server's alone.

local GROUP, MESSAGES, MOST = 'workers', 10000, 1500000
-- A place is one number that a double holds exactly: 2^40 orders for each of 8,001 priorities. Those beyond are as the last one.
local ORDERS, HIGHEST = 1099511627776, 4000

local verb, shard, epoch = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fence = redis.call('HGET', KEYS[5], shard) or '0 0'
local held, last = string.match(fence, '^(%d+) (%d+)$')
if tonumber(held) > epoch then
  return {'fenced', held}
end

if verb == 'order' then
  local number = tonumber(ARGV[4])
  if tonumber(held) == epoch and number <= tonumber(last) then
    return {'ok'}
  end
  for i = 5, #ARGV, 3 do
    local attempt = ARGV[i]
    if redis.call('HEXISTS', KEYS[2], attempt) == 0 and redis.call('HEXISTS', KEYS[3], attempt) == 0 then
      redis.call('HSET', KEYS[2], attempt, redis.call('XADD', KEYS[1], '*', 'a', attempt, 'o', ARGV[i + 1]))
      local priority = math.max(-HIGHEST, math.min(HIGHEST, tonumber(ARGV[i + 2])))
      redis.call('ZADD', KEYS[6], string.format('%.0f', redis.call('HINCRBY', KEYS[5], '', 1) - priority * ORDERS), attempt)
    end
  end
  redis.call('HSET', KEYS[5], shard, ARGV[3] .. ' ' .. ARGV[4])
  return {'ok'}
end

local attempt = ARGV[4]
local entry = redis.call('HGET', KEYS[2], attempt)
if entry then
  redis.call('XACK', KEYS[1], GROUP, entry)
  redis.call('XDEL', KEYS[1], entry)
  redis.call('HDEL', KEYS[2], attempt)
  redis.call('ZREM', KEYS[6], attempt)
  return {'withdrawn'}
end
local claim = redis.call('HGET', KEYS[3], attempt)
if not claim then
  return {'unknown'}
end
local worker = string.match(claim, '^%d+ (.*)$')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local seen = tonumber(redis.call('HGET', KEYS[5], '@') or now)
if tonumber(redis.call('ZSCORE', KEYS[4], worker) or '0') <= seen + math.max(0, math.min(MOST, now - seen)) then
  redis.call('HDEL', KEYS[3], attempt)
  return {'lost', worker}
end
redis.call('XADD', ARGV[6] .. worker, 'MAXLEN', '~', MESSAGES, '*', 'cancel', attempt, 'grace', ARGV[5])
return {'told', worker}
