#!lua
-- The life of a pool's workers: one joins, says that it lives, or leaves; an owner looks what became of its attempts.
--
-- KEYS: 1 queue (stream)   2 waiting (hash: attempt to entry)   3 claims (hash: attempt to '<microseconds> <worker>')
--       4 workers (zset: name, until when)   5 about (hash: worker to what it says of itself)
--       6 fences (hash: shard to '<epoch> <number>'; '@' to the instant of the last call of this script)
--       7 given (hash: worker to what its last call claimed)
-- ARGV: 1 'join', 'beat', 'return', 'leave' or 'look'   2 how the names of the workers' own streams begin
--       join, beat: 3 worker   4 time to live in microseconds   5 what it says of itself
--       beat:       6 'has'    7.. the attempts that it has: claims of its for others are none (a fail-over brought them back), if it says so
--       return, leave: 3 worker; what it had read and not claimed goes back into the queue
--       look:       3 shard   4 epoch of its new owner, which fences former ones, or ''   5.. attempts
-- Result: join, return, leave: {'ok'}      beat: {'ok'}, or {'lost'}: it does not count as living any more, and another one may have its work
--         look: {'ok', number of living workers, for each attempt: '' waiting, '+<worker>' claimed by a living one, '-<worker>' by a dead
--         one (its claim is gone now), '?' neither}, or {'fenced', epoch}
-- Atomicity: one act. Each call buries the workers that are dead: what they had read and not claimed is put into the queue again, where
-- it wakes those who wait; their claims stay, for the owners of the attempts to look at. An owner that ended before it looked never does, so
-- whoever joins removes those that are a day old. Time is this server's alone, and clocks jump: they are set, a machine sleeps, a fail-over
-- brings another server. So between two calls no more time passes than MOST, and never less than none: who lives is heard each second, and
-- while nobody is heard nobody can tell. What a clock did beyond that is added to the instants until which workers live, so that they are
-- the clock's at the end of each call. `pool_claim.lua` and `pool_order.lua` reckon likewise, and change nothing.

local GROUP, BATCH, CLAIM_KEPT, MOST = 'workers', 1000, 86400000000, 1500000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function give_back(worker)
  -- A server that lost its memory has no group: then nothing is pending.
  while true do
    local pending = redis.pcall('XPENDING', KEYS[1], GROUP, '-', '+', BATCH, worker)
    if pending.err or #pending == 0 then
      break
    end
    for _, item in ipairs(pending) do
      local found = redis.call('XRANGE', KEYS[1], item[1], item[1])[1]
      if found then
        local attempt = found[2][2]
        if redis.call('HGET', KEYS[2], attempt) == item[1] then
          redis.call('HSET', KEYS[2], attempt, redis.call('XADD', KEYS[1], '*', unpack(found[2])))
        end
      end
      redis.call('XACK', KEYS[1], GROUP, item[1])
      redis.call('XDEL', KEYS[1], item[1])
    end
  end
end

local function bury(worker)
  give_back(worker)
  redis.pcall('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, worker)
  redis.call('ZREM', KEYS[4], worker)
  redis.call('HDEL', KEYS[5], worker)
  redis.call('HDEL', KEYS[7], worker)
  redis.call('DEL', ARGV[2] .. worker)
end

local last = tonumber(redis.call('HGET', KEYS[6], '@') or now)
local reckoned = last + math.max(0, math.min(MOST, now - last))
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', string.format('%.0f', reckoned))) do
  bury(worker)
end
if reckoned ~= now then
  local living = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
  for i = 1, #living, 2 do
    redis.call('ZADD', KEYS[4], string.format('%.0f', living[i + 1] + now - reckoned), living[i])
  end
end
redis.call('HSET', KEYS[6], '@', string.format('%.0f', now))

-- The wait of a worker that is suspended, or whose connection nobody closed, goes on at the server behind its burial, and is
-- answered with the next order: so whoever has read something and does not live is looked for, too.
local summary = redis.pcall('XPENDING', KEYS[1], GROUP)
if not summary.err and summary[1] > 0 then
  for _, consumer in ipairs(summary[4]) do
    if not redis.call('ZSCORE', KEYS[4], consumer[1]) then
      bury(consumer[1])
    end
  end
end

local verb = ARGV[1]
if verb == 'look' then
  local shard, answer = ARGV[3], {'ok', redis.call('ZCARD', KEYS[4])}
  if ARGV[4] ~= '' then
    local held = string.match(redis.call('HGET', KEYS[6], shard) or '0 0', '^(%d+) ')
    if tonumber(held) > tonumber(ARGV[4]) then
      return {'fenced', held}
    elseif tonumber(held) < tonumber(ARGV[4]) then
      redis.call('HSET', KEYS[6], shard, ARGV[4] .. ' 0')
    end
  end
  for i = 5, #ARGV do
    local attempt, found = ARGV[i], '?'
    local claim = redis.call('HGET', KEYS[3], attempt)
    if claim then
      local worker = string.match(claim, '^%d+ (.*)$')
      if redis.call('ZSCORE', KEYS[4], worker) then
        found = '+' .. worker
      else
        found = '-' .. worker
        redis.call('HDEL', KEYS[3], attempt)
      end
    elseif redis.call('HEXISTS', KEYS[2], attempt) == 1 then
      found = ''
    end
    answer[#answer + 1] = found
  end
  return answer
end

local worker = ARGV[3]
if verb == 'return' then
  give_back(worker)
  return {'ok'}
end
if verb == 'leave' then
  bury(worker)
  return {'ok'}
end
if verb == 'join' then
  redis.pcall('XGROUP', 'CREATE', KEYS[1], GROUP, '0', 'MKSTREAM')
  local claims = redis.call('HGETALL', KEYS[3])
  for i = 1, #claims, 2 do
    local at, owner = string.match(claims[i + 1], '^(%d+) (.*)$')
    if tonumber(at) < now - CLAIM_KEPT and not redis.call('ZSCORE', KEYS[4], owner) then
      redis.call('HDEL', KEYS[3], claims[i])
    end
  end
elseif not redis.call('ZSCORE', KEYS[4], worker) then
  return {'lost'}
end
redis.call('ZADD', KEYS[4], string.format('%.0f', now + tonumber(ARGV[4])), worker)
redis.call('HSET', KEYS[5], worker, ARGV[5])
if ARGV[6] then
  local has = {}
  for i = 7, #ARGV do
    has[ARGV[i]] = true
  end
  local claims = redis.call('HGETALL', KEYS[3])
  for i = 1, #claims, 2 do
    if not has[claims[i]] and string.match(claims[i + 1], '^%d+ (.*)$') == worker then
      redis.call('HDEL', KEYS[3], claims[i])
    end
  end
end
return {'ok'}
