-- KEYS forced
-- ARGV pause-ms day
-- Answers 0, or the ms until it may be.
local now = clock_ms()
local last, first = redis.call('LINDEX', KEYS[1], 0), redis.call('LINDEX', KEYS[1], ARGV[2] - 1)
local wait = math.max(last and last + ARGV[1] - now or 0, first and first + 86400000 - now or 0)
if wait > 0 then return wait end
redis.call('LPUSH', KEYS[1], string.format('%d', now))
redis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)
redis.call('PEXPIRE', KEYS[1], 86400000)
return 0
