#!lua
-- Claim the orders that a worker has read from its pool's queue.
--
-- KEYS: 1 queue (stream)   2 waiting (hash: attempt to entry)   3 claims (hash: attempt to '<microseconds> <worker>')
--       4 workers (zset: name, until when)
-- ARGV: 1 worker   2.. for each order: entry, attempt
-- Result: {'ok', 1 or 0 for each order}: whether it is this worker's to run. It is not where it was cancelled, or is another entry's.
--         {'dead'}: the worker does not count as living; its entries go back into the queue with its burial
-- Atomicity: check, claim and acknowledgement are one act, so that an attempt is claimed once and no entry is acknowledged that
-- is not claimed. Time is this server's alone.

local GROUP = 'workers'

local worker = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if tonumber(redis.call('ZSCORE', KEYS[4], worker) or '0') <= now then
  return {'dead'}
end
local answer = {'ok'}
local claim = string.format('%.0f', now) .. ' ' .. worker
for i = 2, #ARGV, 2 do
  local entry, attempt = ARGV[i], ARGV[i + 1]
  local _, owner = string.match(redis.call('HGET', KEYS[3], attempt) or '', '^(%d+) (.*)$')
  local mine = owner == worker  -- the call is repeated: its answer was lost
  if redis.call('HGET', KEYS[2], attempt) == entry then
    mine = true
    redis.call('HDEL', KEYS[2], attempt)
    redis.call('HSET', KEYS[3], attempt, claim)
  end
  redis.call('XACK', KEYS[1], GROUP, entry)
  redis.call('XDEL', KEYS[1], entry)
  answer[#answer + 1] = mine and 1 or 0
end
return answer
