-- KEYS session index
-- ARGV reason id session-base name
-- name: only if it is this user's; empty: whoever's.
local index, base, s = KEYS[2], ARGV[3], read(redis.call('GET', KEYS[1]))
if not s then return 0 end
local name = string.sub(redis.sha1hex(s.user), 1, 16)
if ARGV[4] ~= '' and ARGV[4] ~= name then return 0 end
local member = name .. s.order .. ARGV[2]
bury(KEYS[1], ARGV[1])
redis.call('ZREM', index, member)
local last = newest(index, name, base)
if last and last < member then
	local from, to = range_of(name)
	for _, m in ipairs(redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1000)) do
		local key = base .. id_of(m)
		local heir = alive(key)
		if heir and heir.keys ~= s.keys then redis.call('SET', key, heir.head .. s.keys, 'PX', left(key)) end
	end
end
return 1
