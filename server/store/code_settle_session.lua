-- KEYS code
-- ARGV value linger-ms
-- A session is the truth whoever holds the claim by now; it gives way only to another session.
local v = redis.call('GET', KEYS[1])
if v and string.sub(v, 1, 1) == 's' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
