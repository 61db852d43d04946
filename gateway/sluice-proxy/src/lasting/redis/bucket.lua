-- The bucket of the engine's `bucket`, shared: its level in units times microseconds of the span, by
-- Redis's own clock. O(1); the key expires when the bucket is empty; a refused call writes nothing; a key
-- that holds something else is made anew.
-- KEYS[1] the bucket; ARGV calls wanted, limit, span in microseconds, the most the level may be, calls
-- given back.
-- Returns calls admitted, as many as fit; now; level before them. Packed, for the reasons of the window.
local call, pack = redis.call, struct.pack
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local wanted, limit, span, most, back = ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0, ARGV[5] + 0
local level = 0
-- What is longer than a bucket is not read whole.
local held = redis.pcall('GETRANGE', KEYS[1], '0', '16')
if #held == 16 then
  local poured, at = struct.unpack('<dd', held)
  level = math.max(0, poured - math.max(0, now - at) * limit - back * span)
end
local calls = math.floor((most - level) / span)
if calls > wanted then
  calls = wanted
end
if calls < 1 then
  calls = 0
  if back == 0 then
    return pack('<I8I8I8', calls, now, level)
  end
end
local poured = level + calls * span
call('SET', KEYS[1], pack('<dd', poured, now), 'PX', math.ceil(poured / limit / 1000) + 1000)
return pack('<I8I8I8', calls, now, level)
