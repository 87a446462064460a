#!lua
-- Take, renew, release or bury the right to write a shard.
--
-- KEYS: 1 lease (hash: owner, epoch, expires in microseconds of this server)   2 active (set)   3 inbox (stream)
--       4 feed (stream)
-- ARGV: 1 'take', 'renew', 'release' or 'bury'  2 owner  3 time to live in microseconds (take, renew)  4 epoch (renew, release),
--       or the last one the claimant held (take; '0' for none): a lease of an earlier one came back from before, with a fail-over
--       5 'ends' where the shard is of one run, and nobody takes it again when that is over; or '' (release)
-- Result: {'ok', epoch} (epochs are text)      {'held', owner, microseconds left, epoch}
-- Atomicity: every check stands before the writes. The key never expires by itself: it must outlive the lease, because the epoch in it
-- fences whoever still believes to own the shard. Time is this server's alone. Where its clock went back, a lease seems to last for hours: one of more
-- than five minutes, which no owner asks for, is counted anew from now, as the claimant's. An owner that lives renews it meanwhile.

local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'expires')
local owner, epoch, expires = lease[1] or '', lease[2] or '0', tonumber(lease[3] or '0')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local verb, claimant = ARGV[1], ARGV[2]

if verb == 'take' then
  local since = tonumber(ARGV[4])
  if owner ~= '' and owner ~= claimant and expires > now and tonumber(epoch) >= since then
    if expires - now > 300000000 and tonumber(ARGV[3]) <= 300000000 then
      expires = now + tonumber(ARGV[3])
      redis.call('HSET', KEYS[1], 'expires', string.format('%.0f', expires))
    end
    return {'held', owner, string.format('%.0f', expires - now), epoch}
  end
  -- Not only old + 1: a fail-over can take the counter back, and the clock goes on.
  epoch = string.format('%.0f', math.max(tonumber(epoch) + 1, since + 1, now))
  redis.call('HSET', KEYS[1], 'owner', claimant, 'epoch', epoch, 'expires', string.format('%.0f', now + tonumber(ARGV[3])))
  return {'ok', epoch}
end

if verb == 'bury' then
  -- Whoever calls knows that this owner's process is gone: nobody has to wait for the end of its lease.
  if owner == claimant then
    redis.call('HSET', KEYS[1], 'owner', '', 'expires', '0')
  end
  return {'ok', epoch}
end

if owner ~= claimant or epoch ~= ARGV[4] then
  return {'held', owner, string.format('%.0f', math.max(expires - now, 0)), epoch}
end
if verb == 'renew' then
  redis.call('HSET', KEYS[1], 'expires', string.format('%.0f', now + tonumber(ARGV[3])))
else
  redis.call('HSET', KEYS[1], 'owner', '', 'expires', '0')
  if redis.call('EXISTS', KEYS[2]) == 0 then
    -- Nothing left to write in this shard: leave no key behind, but the epoch of one that others will take. The next one would be larger by
    -- the clock, but for a clock that goes back.
    redis.call('DEL', KEYS[4])
    if ARGV[5] == 'ends' then
      redis.call('DEL', KEYS[1])
    end
    if redis.call('XLEN', KEYS[3]) == 0 then
      redis.call('DEL', KEYS[3])
    end
  end
end
return {'ok', epoch}
