-- KEYS index, then keys that go with the last session
-- ARGV session-base name reason limit
-- Answers the ids that it ended; as many as the limit: there may be more.
local from, to = range_of(ARGV[2])
local ids = {}
for i, m in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], from, to, 'LIMIT', 0, ARGV[4])) do
	ids[i] = id_of(m)
	bury(ARGV[1] .. ids[i], ARGV[3])
	redis.call('ZREM', KEYS[1], m)
end
if #ids < tonumber(ARGV[4]) and #KEYS > 1 then redis.call('DEL', unpack(KEYS, 2)) end
return ids
