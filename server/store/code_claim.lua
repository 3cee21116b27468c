-- KEYS code
-- ARGV holder hold-ms
-- Answers what stands there already, or nil: the claim is the holder's.
local v = redis.call('GET', KEYS[1])
if v then return v end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
