-- KEYS session index
-- ARGV reason id session-base name
-- name: only if it is this user's; empty: whoever's.
local index, base = KEYS[2], ARGV[3]
local order, appid, openid, keys = string.match(redis.call('GET', KEYS[1]) or '',
	'^(%d+)|%d*|%d*|([^|]*)|([^|]*)|[^|]*|[^|]*|[^|]*|(.*)$')
if not order then return 0 end
local name = string.sub(redis.sha1hex(appid .. ':' .. openid), 1, 16)
if ARGV[4] ~= '' and ARGV[4] ~= name then return 0 end
local member = name .. order .. ARGV[2]
bury(KEYS[1], ARGV[1])
redis.call('ZREM', index, member)
local last = newest(index, name, base)
if last and last < member then
	local from, to = range_of(name)
	for _, m in ipairs(redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1000)) do
		local key = base .. id_of(m)
		local heir, _, theirs = alive(key)
		if heir and theirs ~= keys then
			local rest = string.sub(heir, 1, #heir - #theirs)
			redis.call('SET', key, rest .. keys, 'PX', left(key))
		end
	end
end
return 1
