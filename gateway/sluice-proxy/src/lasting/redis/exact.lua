-- The log of the engine's `exact`, shared: the times of admitted calls by Redis's own clock, the newest
-- first. Each call drops a few that have grown old and looks at one, so it is O(1); the list holds at most
-- `limit` times and expires; a refused call writes nothing new; a key that holds something else is made
-- anew.
-- KEYS[1] the log; ARGV calls wanted (always 1), limit, width in microseconds.
-- Returns {admitted; now; calls held before this one, the time of the one that has to grow old first, of
-- the newest}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limit, width = tonumber(ARGV[2]), tonumber(ARGV[3])
local oldest = redis.pcall('LINDEX', KEYS[1], -1)
if type(oldest) == 'table' and oldest.err then
  redis.call('DEL', KEYS[1])
  oldest = false
end
local dropped = 0
while oldest and tonumber(oldest) + width <= now and dropped < 16 do
  redis.call('RPOP', KEYS[1])
  dropped = dropped + 1
  oldest = redis.call('LINDEX', KEYS[1], -1)
end
local held = redis.call('LLEN', KEYS[1])
local newest = tonumber(redis.call('LINDEX', KEYS[1], 0) or now) or now
if held >= limit then
  -- Of those held, the limit-th newest has to be old.
  local barrier = tonumber(redis.call('LINDEX', KEYS[1], limit - 1))
  if barrier + width > now then
    return {0, now, held, barrier, newest}
  end
end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('LTRIM', KEYS[1], 0, limit - 1)
redis.call('PEXPIRE', KEYS[1], math.ceil(width / 1000))
return {1, now, math.min(held, limit - 1), now, now}
