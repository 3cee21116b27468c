-- KEYS index
-- ARGV session-base name limit
-- Answers id, value without session_keys, what remains in ms; and so on, the newest first. Forgets
-- those that are no more.
local from, to = range_of(ARGV[2])
local out = {}
for _, m in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[1], to, from, 'LIMIT', 0, ARGV[3])) do
	local key = ARGV[1] .. id_of(m)
	local value, _, keys = alive(key)
	if value then
		out[#out + 1] = id_of(m)
		out[#out + 1] = string.sub(value, 1, #value - #keys)
		out[#out + 1] = redis.call('PTTL', key)
	else
		redis.call('ZREM', KEYS[1], m)
	end
end
return out
