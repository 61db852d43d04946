-- The bucket of the engine's `bucket`, shared: its level in units times microseconds of the span, by
-- Redis's own clock. O(1); the key expires when the bucket is empty; a refused call writes nothing; a key
-- that holds something else is made anew.
-- KEYS[1] the bucket; ARGV calls wanted, limit, span in microseconds, the most the level may be, calls
-- given back.
-- Returns {calls admitted, as many as fit; now; level before them}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local wanted, limit, span = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local most = tonumber(ARGV[4])
local held = redis.pcall('HMGET', KEYS[1], 'l', 't')
if held.err then
  redis.call('DEL', KEYS[1])
  held = {}
end
local level, at = tonumber(held[1] or 0) or 0, tonumber(held[2] or now) or now
level = math.max(0, level - math.max(0, now - at) * limit - tonumber(ARGV[5]) * span)
local calls = math.min(wanted, math.floor((most - level) / span))
if calls < 1 and ARGV[5] == '0' then
  return {0, now, level}
end
calls = math.max(0, calls)
local poured = level + calls * span
redis.call('HSET', KEYS[1], 'l', string.format('%.0f', poured), 't', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(poured / limit / 1000) + 1000)
return {calls, now, level}
