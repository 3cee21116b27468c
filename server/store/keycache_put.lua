-- KEYS keys index
-- ARGV value ttl-ms session-base name
-- Nothing is kept of a user who has no session that lives.
if not newest(KEYS[2], ARGV[4], ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
