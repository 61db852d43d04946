-- The quota of the engine's `quota`, shared: what was used in a period of the calendar, by Redis's own
-- clock. O(1); the key expires with its period; a refused call writes nothing; a key that holds something
-- else is made anew. The calendar's arithmetic is the engine's.
-- KEYS[1] the count; ARGV calls wanted, limit, 0 for days or 1 for months, seconds east of UTC,
-- calls given back, and the period they were counted in.
-- Returns {calls admitted, as many as fit; now; period, used before them}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local wanted, limit, offset = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local seconds = tonumber(time[1]) + offset
local day = math.floor(seconds / 86400)
local period, ends = day, (day + 1) * 86400
if ARGV[3] == '1' then
  local shifted = day + 719468
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  period = (era * 400 + year) * 12 + math.floor((5 * of_year + 2) / 153) + 2
  -- Long enough for what is left of any month.
  ends = (day + 32) * 86400
end
local held = redis.pcall('HMGET', KEYS[1], 'p', 'u')
if held.err then
  redis.call('DEL', KEYS[1])
  held = {}
end
local last, used = tonumber(held[1] or -1) or -1, tonumber(held[2] or 0) or 0
if last < period then
  used = 0
else
  period = last
end
local back = tonumber(ARGV[5])
if back > 0 and tonumber(ARGV[6]) == period then
  used = math.max(0, used - back)
end
local calls = math.min(wanted, limit - used)
if calls < 1 and back == 0 then
  return {0, now, period, used}
end
calls = math.max(0, calls)
redis.call('HSET', KEYS[1], 'p', period, 'u', used + calls)
redis.call('EXPIRE', KEYS[1], math.max(1, ends - seconds + 60))
return {calls, now, period, used}
