-- KEYS token lock bad
-- ARGV holder hash value ttl-ms
-- Answers 1 when it is the one reported dead. Kept also by a holder whose lock has ended: the token
-- is WeChat's newest all the same.
if redis.call('GET', KEYS[3]) == ARGV[2] then return 1 end
redis.call('SET', KEYS[1], ARGV[2] .. ARGV[3], 'PX', ARGV[4])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 0
