-- KEYS index block
-- ARGV session-base name limit until(s) ms
-- The user makes no session until then (0: for ever), and has none: ends as many as the limit,
-- there may be more. Answers their ids.
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
local from, to = range_of(ARGV[2])
local ids = {}
for i, m in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], from, to, 'LIMIT', 0, ARGV[3])) do
	ids[i] = id_of(m)
	bury(ARGV[1] .. ids[i], 'blocked')
	redis.call('ZREM', KEYS[1], m)
end
return ids
