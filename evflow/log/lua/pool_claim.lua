#!lua
-- Claim as many orders as a worker has read from its pool's queue: those that come first, whichever it read.
--
-- KEYS: 1 queue (stream)   2 waiting (hash: attempt to entry)   3 claims (hash: attempt to '<microseconds> <worker>')
--       4 workers (zset: name, until when)   5 ranks (zset: attempt, its place among those that wait)
--       6 given (hash: worker to {the first entry of its last call, the answer}, packed)
--       7 fences (hash: '@' to the instant of the last call of `pool_life.lua`, which says how time is reckoned)
-- ARGV: 1 worker   2.. for each order: entry, attempt
-- Result: {'ok', for each order 1: it is this worker's to run, {entry, attempt, order}: this one is instead, or 0: none is}. The stream's order
--         is that of arrival: an entry that was read says that there is something, and another one goes back for what it stood for.
--         {'dead'}: the worker does not count as living; its entries go back into the queue with its burial
-- Atomicity: check, claim and acknowledgement are one act, so that an attempt is claimed once and no entry is acknowledged that
-- is not claimed; an attempt that waits has one entry at any time. A call that is repeated has the same answer: a claim by this worker
-- says so, and what was given instead is kept until its next call. What comes first and has no entry any more (somebody removed it from
-- the stream) leaves the order and does not wait: its owner sees that and starts it again. Time is this server's alone.

local GROUP, MOST = 'workers', 1500000

local worker = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('HGET', KEYS[7], '@') or now)
if tonumber(redis.call('ZSCORE', KEYS[4], worker) or '0') <= last + math.max(0, math.min(MOST, now - last)) then
  return {'dead'}
end
local last = redis.call('HGET', KEYS[6], worker)
if last then
  last = cmsgpack.unpack(last)
  if last[1] == ARGV[2] then
    return last[2]
  end
  redis.call('HDEL', KEYS[6], worker)
end
local answer, swapped, given = {'ok'}, false, {}
local claim = string.format('%.0f', now) .. ' ' .. worker
local function take(attempt, entry)
  redis.call('HDEL', KEYS[2], attempt)
  redis.call('ZREM', KEYS[5], attempt)
  redis.call('HSET', KEYS[3], attempt, claim)
  redis.call('XACK', KEYS[1], GROUP, entry)
  redis.call('XDEL', KEYS[1], entry)
end

-- What comes first; unless that is `own`, with its entry and what is in it.
local function comes_first(own)
  while true do
    local first = redis.call('ZRANGE', KEYS[5], 0, 0)[1]
    if not first or first == own then
      return first
    end
    local its = redis.call('HGET', KEYS[2], first)
    local found = its and redis.call('XRANGE', KEYS[1], its, its)[1]
    if found then
      return first, its, found[2]
    end
    redis.call('ZREM', KEYS[5], first)
    redis.call('HDEL', KEYS[2], first)
  end
end

for i = 2, #ARGV, 2 do
  local entry, attempt = ARGV[i], ARGV[i + 1]
  local waits = redis.call('HGET', KEYS[2], attempt) == entry
  local _, owner = string.match(redis.call('HGET', KEYS[3], attempt) or '', '^(%d+) (.*)$')
  if not waits and owner == worker and not given[attempt] then  -- the call is repeated: its answer was lost
    answer[#answer + 1] = 1
  else
    local first, its, order = comes_first(waits and attempt)
    if waits and (not first or first == attempt) then
      take(attempt, entry)
      answer[#answer + 1] = 1
    else
      local own = waits and redis.call('XRANGE', KEYS[1], entry, entry)[1]
      redis.call('XACK', KEYS[1], GROUP, entry)
      redis.call('XDEL', KEYS[1], entry)
      if own then
        redis.call('HSET', KEYS[2], attempt, redis.call('XADD', KEYS[1], '*', unpack(own[2])))
      end
      if first then
        take(first, its)
        answer[#answer + 1] = {its, first, order[4]}
        swapped, given[first] = true, true
      else
        answer[#answer + 1] = 0
      end
    end
  end
end
if swapped then
  redis.call('HSET', KEYS[6], worker, cmsgpack.pack({ARGV[2], answer}))
end
return answer
