#!lua
-- Hold a limited name, give it back, or see who holds it.
--
-- KEYS: 1 held (hash: holder, msgpack of {slot, since in microseconds of this server, shard})   2 waiting (set: shards)
-- ARGV: 1 'acquire', 'hold' or 'release'  2 how many may hold it  3 the holders' shard  4... holders
-- Result: acquire, hold: {number of holders now, granted holder, its slot, ...}; a holder that has it keeps its slot
--         release: the shards that waited, whose owners are to look again
-- Atomicity: every check stands before the writes. 'hold' takes no heed of the number: the holder runs, whatever a server that lost
-- its memory says. Slots are the lowest free ones, from 0.

local verb, most, shard = ARGV[1], tonumber(ARGV[2]), ARGV[3]

if verb == 'release' then
  local freed = 0
  for index = 4, #ARGV do
    freed = freed + redis.call('HDEL', KEYS[1], ARGV[index])
  end
  if freed == 0 then
    return {}
  end
  local waiting = redis.call('SMEMBERS', KEYS[2])
  table.sort(waiting)
  redis.call('DEL', KEYS[2])
  return waiting
end

local held, used, count = {}, {}, 0
local pairs_of = redis.call('HGETALL', KEYS[1])
for index = 1, #pairs_of, 2 do
  local slot = cmsgpack.unpack(pairs_of[index + 1])[1]
  held[pairs_of[index]] = slot
  used[slot] = true
  count = count + 1
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local granted, denied, slot = {}, false, 0
for index = 4, #ARGV do
  local holder = ARGV[index]
  if held[holder] then
    table.insert(granted, holder)
    table.insert(granted, held[holder])
  elseif verb == 'hold' or count < most then
    while used[slot] do
      slot = slot + 1
    end
    used[slot], held[holder], count = true, slot, count + 1
    redis.call('HSET', KEYS[1], holder, cmsgpack.pack({slot, now, shard}))
    table.insert(granted, holder)
    table.insert(granted, slot)
  else
    denied = true
  end
end
if denied then
  redis.call('SADD', KEYS[2], shard)
end
return {count, unpack(granted)}
