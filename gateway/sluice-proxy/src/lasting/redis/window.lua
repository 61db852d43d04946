-- The sliding window of the engine's `window`, shared: two buckets, in microseconds of Redis's own
-- clock, so that gateways need not agree about the time. O(1); the key expires by itself; a refused
-- call counts for nothing; a key that holds something else is made anew.
-- KEYS[1] the counter; ARGV calls wanted, limit, width in microseconds, calls given back, and the bucket
-- they were counted in.
-- Returns {calls admitted, as many as fit; now; bucket, previous, current before them}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local wanted, limit, width = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local bucket = math.floor(now / width)
local held = redis.pcall('HMGET', KEYS[1], 'b', 'p', 'c')
if held.err then
  redis.call('DEL', KEYS[1])
  held = {}
end
local last = tonumber(held[1] or -1) or -1
local previous, current = tonumber(held[2] or 0) or 0, tonumber(held[3] or 0) or 0
if last == bucket - 1 then
  previous, current = current, 0
elseif last ~= bucket then
  previous, current = 0, 0
end
local back = tonumber(ARGV[4])
if back > 0 and tonumber(ARGV[5]) == bucket then
  current = math.max(0, current - back)
elseif back > 0 and tonumber(ARGV[5]) == bucket - 1 then
  previous = math.max(0, previous - back)
end
local left = width - (now - bucket * width)
local calls = math.min(wanted, limit - current - math.ceil(previous * left / width))
if calls < 1 and back == 0 then
  return {0, now, bucket, previous, current}
end
calls = math.max(0, calls)
redis.call('HSET', KEYS[1], 'b', bucket, 'p', previous, 'c', current + calls)
redis.call('PEXPIRE', KEYS[1], math.ceil(width * 2 / 1000))
return {calls, now, bucket, previous, current}
