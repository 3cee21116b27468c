-- KEYS lock bad
-- ARGV holder mark ms
-- The token that was to be dropped is given again: it could not be replaced.
if redis.call('GET', KEYS[1]) == ARGV[1] then
	redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
	redis.call('DEL', KEYS[2])
end
return 0
