-- Who is alive: each gateway says so every second, and is forgotten after three.
-- KEYS[1] the set; ARGV the gateway's own name. Returns how many there are.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local done = redis.pcall('ZADD', KEYS[1], now, ARGV[1])
if type(done) == 'table' and done.err then
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 3000)
redis.call('PEXPIRE', KEYS[1], 10000)
return redis.call('ZCARD', KEYS[1])
