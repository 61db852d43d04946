-- The sliding window of the engine's `window`, shared: two buckets, in microseconds of Redis's own
-- clock, so that gateways need not agree about the time. O(1); the key expires by itself; a refused
-- call counts for nothing; a key that holds something else is made anew.
-- KEYS[1] the counter; ARGV calls wanted, limit, width in microseconds, calls given back, the bucket they
-- were counted in, and for how many milliseconds the counter is kept.
-- Returns calls admitted, as many as fit; now; bucket, previous, current before them.
-- Counter and reply are packed, and nothing is looked up twice: most of a script's time in Redis goes into
-- commands, into names and into numbers that become text and back.
local call, pack = redis.call, struct.pack
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local wanted, limit, width, back = ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0
local into = now % width
local bucket = (now - into) / width
local previous, current = 0, 0
-- What is longer than a counter is not read whole.
local held = redis.pcall('GETRANGE', KEYS[1], '0', '24')
if #held == 24 then
  local last, before, counted = struct.unpack('<I8I8I8', held)
  if last == bucket then
    previous, current = before, counted
  elseif last == bucket - 1 then
    previous = counted
  end
end
if back > 0 then
  local lot = ARGV[5] + 0
  if lot == bucket then
    current = math.max(0, current - back)
  elseif lot == bucket - 1 then
    previous = math.max(0, previous - back)
  end
end
local calls = limit - current - math.ceil(previous * (width - into) / width)
if calls > wanted then
  calls = wanted
end
if calls < 1 then
  calls = 0
  if back == 0 then
    return pack('<I8I8I8I8I8', calls, now, bucket, previous, current)
  end
end
call('SET', KEYS[1], pack('<I8I8I8', bucket, previous, current + calls), 'PX', ARGV[6])
return pack('<I8I8I8I8I8', calls, now, bucket, previous, current)
