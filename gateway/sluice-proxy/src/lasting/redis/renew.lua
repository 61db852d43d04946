-- Keeps places of `enter` for another lease. A place that has lapsed meanwhile, or was lost with an emptied
-- server, is taken again: its request is in progress all the same.
-- KEYS[1] the set; ARGV lease in microseconds, then the names of the places. Returns their number.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local lease = tonumber(ARGV[1])
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'zset' and kind ~= 'none' then
  redis.call('DEL', KEYS[1])
end
for at = 2, #ARGV do
  redis.call('ZADD', KEYS[1], now + lease, ARGV[at])
end
redis.call('PEXPIRE', KEYS[1], math.ceil(lease / 1000))
return #ARGV - 1
