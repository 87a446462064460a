#!lua
-- Hold a limited name, give it back, or see who holds it.
--
-- KEYS: 1 held (hash: holder, msgpack of {slot, since in microseconds of this server, shard})
--       2 line (hash: shard, msgpack of {priority, began, since, called, holder}: who was refused last, and when it was told to look)
-- ARGV: 1 'acquire', 'hold' or 'release'  2 how many may hold it  3 the holders' shard  4 their priority
--       5 when their run began, in microseconds  6 how long a place is kept for whoever was told, in microseconds  7... holders
-- Result: acquire, hold: {number of holders now, microseconds until a kept place is let go or 0, {shards to tell that they
--         are to look}, granted holder, its slot, ...}; a holder that has it keeps its slot
--         release: the shards that wait, the first in line first, whose owners are to look again
-- Atomicity: every check stands before the writes. 'hold' takes no heed of the number: the holder runs, whatever a server that lost
-- its memory says. Slots are the lowest free ones, from 0.
-- Order: by priority, then by when the runs began, then by shard. A free place is kept for each shard that comes before the asking one, from
-- when it was told until the time is up; then it has lost its place in the line, which it gets again by asking.

local verb, most, shard, kept_us = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[6])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function comes_before(one, other)
  if one.priority ~= other.priority then
    return one.priority > other.priority
  end
  if one.began ~= other.began then
    return one.began < other.began
  end
  return one.shard < other.shard
end

local function line()
  local found = {}
  local pairs_of = redis.call('HGETALL', KEYS[2])
  for index = 1, #pairs_of, 2 do
    local noted = cmsgpack.unpack(pairs_of[index + 1])
    table.insert(found, {
      shard = pairs_of[index], priority = noted[1], began = noted[2], since = noted[3], called = noted[4], holder = noted[5],
    })
  end
  table.sort(found, comes_before)
  return found
end

local function note(one)
  redis.call('HSET', KEYS[2], one.shard, cmsgpack.pack({one.priority, one.began, one.since, one.called, one.holder}))
end

if verb == 'release' then
  local freed = 0
  for index = 7, #ARGV do
    freed = freed + redis.call('HDEL', KEYS[1], ARGV[index])
  end
  local told = {}
  if freed > 0 then
    for _, one in ipairs(line()) do
      if one.called == 0 then
        one.called = now
        note(one)
      end
      table.insert(told, one.shard)
    end
  end
  return told
end

local held, used, count = {}, {}, 0
local pairs_of = redis.call('HGETALL', KEYS[1])
for index = 1, #pairs_of, 2 do
  local slot = cmsgpack.unpack(pairs_of[index + 1])[1]
  held[pairs_of[index]] = slot
  used[slot] = true
  count = count + 1
end

local me = {shard = shard, priority = tonumber(ARGV[4]), began = tonumber(ARGV[5]), since = now, called = 0, holder = ''}
local kept, wait_us, told = 0, 0, {}
if verb == 'acquire' and count < most then
  for _, one in ipairs(line()) do
    if one.shard ~= shard and comes_before(one, me) then
      if one.called == 0 then
        one.called = now
        note(one)
        table.insert(told, one.shard)
      end
      local left = one.called + kept_us - now
      if left > 0 and left <= kept_us then
        kept = kept + 1
        wait_us = wait_us == 0 and left or math.min(wait_us, left)
      else
        redis.call('HDEL', KEYS[2], one.shard)
      end
    end
  end
end

local granted, denied, slot = {}, nil, 0
for index = 7, #ARGV do
  local holder = ARGV[index]
  if held[holder] then
    table.insert(granted, holder)
    table.insert(granted, held[holder])
  elseif verb == 'hold' or count + kept < most then
    while used[slot] do
      slot = slot + 1
    end
    used[slot], held[holder], count = true, slot, count + 1
    redis.call('HSET', KEYS[1], holder, cmsgpack.pack({slot, now, shard}))
    table.insert(granted, holder)
    table.insert(granted, slot)
  else
    denied = denied or holder
  end
end
if verb == 'acquire' then
  if denied then
    local before = redis.call('HGET', KEYS[2], shard)
    if before then
      local noted = cmsgpack.unpack(before)
      if noted[5] == denied then
        me.since = noted[3]
      end
    end
    me.holder = denied
    note(me)
  else
    redis.call('HDEL', KEYS[2], shard)
  end
end
return {count, (denied and count < most) and wait_us or 0, told, unpack(granted)}
