-- Requests in progress, shared: a place for each in a sorted set, by the moment at which it is free again
-- if nobody renews it, by Redis's own clock. O(log n) in the places, of which there are `limit` at most,
-- apart from what has lapsed; the set expires with the last of them; a refused request takes nothing; a
-- key that holds something else is made anew.
-- KEYS[1] the set; ARGV limit, lease in microseconds, the place's own name.
-- Returns {admitted, now, places taken before this one}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limit, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local swept = redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if type(swept) == 'table' and swept.err then
  redis.call('DEL', KEYS[1])
end
local taken = redis.call('ZCARD', KEYS[1])
if taken >= limit then
  return {0, now, taken}
end
redis.call('ZADD', KEYS[1], now + lease, ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.ceil(lease / 1000))
return {1, now, taken}
