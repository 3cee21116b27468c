-- What the scripts of sessions share. Each block (there is no blank line in one) defines one helper. make puts before a script
-- those helpers that it uses, and no others (scripts/lua-compose). How sessions lie in Redis: session.h and session_create.lua.

-- Redis' clock in ms.
local function clock_ms()
	local t = redis.call('TIME')
	return tonumber(t[1]) * 1000 + math.floor(t[2] / 1000)
end

-- The parts of a session's value; nil when it is none.
local function read(value)
	local head, order, ahead, rest, appid, openid, keys = string.match(value or '',
		'^((%d+)|%d*|(%d*)|(([^|]*)|([^|]*)|[^|]*|[^|]*|[^|]*|))(.*)$')
	if not head then return nil end
	return {head = head, order = order, ahead = tonumber(ahead) or 0, rest = rest, user = appid .. ':' .. openid, keys = keys}
end

-- The key that says that max_age ends this session.
local function mark(key)
	return string.sub(key, 1, -21) .. '!' .. string.sub(key, -20)
end

-- The parts of a session that lives, else nil.
local function alive(key)
	return read(redis.call('GET', key))
end

-- A key's TTL in ms, for SET PX, which refuses the 0 of a last millisecond.
local function left(key)
	return math.max(1, redis.call('PTTL', key))
end

-- A number as text; 0 is empty.
local function digits(n)
	return n > 0 and string.format('%.0f', n) or ''
end

-- Writes a session.
local function put(key, s, seen, life, ttl)
	redis.call('SET', key, s.order .. '|' .. digits(seen) .. '|' .. digits(s.ahead) .. '|' .. s.rest .. s.keys, 'PX', life)
	if life < ttl then redis.call('SET', mark(key), '', 'PX', ttl) end
end

-- Ends a session. DEL first: a Redis that is full takes the shorter value only from a script that has written before, and a session
-- must end all the same.
local function bury(key, reason)
	if not alive(key) then return end
	local rest = left(key)
	redis.call('DEL', key, mark(key))
	redis.call('SET', key, '!' .. reason, 'PX', rest)
end

-- A user's part of the index, as ZRANGEBYLEX wants it.
local function range_of(name)
	return '[' .. name, '(' .. name .. ':'
end

local function id_of(member)
	return string.sub(member, -20)
end

-- The user's newest session that lives: its member of the index, and its session_keys. The dead after it leave the index, a thousand
-- at most.
local function newest(index, name, base)
	local from, to = range_of(name)
	for _ = 1, 1000 do
		local last = redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1)[1]
		if not last then return nil end
		local s = alive(base .. id_of(last))
		if s then return last, s.keys end
		redis.call('ZREM', index, last)
	end
end

-- Enters a session, whose life is so many ms, into the index.
local function enter(index, member, life)
	redis.call('ZADD', index, 0, member)
	if redis.call('PTTL', index) < life then redis.call('PEXPIRE', index, life) end
end

-- Looks at three members of the index, somewhere, and goes on while it finds dead ones: these leave.
local function sweep(index, base, seed)
	for round = 1, 100 do
		local size = redis.call('ZCARD', index)
		local at = tonumber(string.sub(redis.sha1hex(seed .. round), 1, 8), 16) % size
		local members, keys = redis.call('ZRANGE', index, at, at + 2), {}
		for i, m in ipairs(members) do keys[i] = base .. id_of(m) end
		if redis.call('EXISTS', unpack(keys)) == #keys then return end
		for i, m in ipairs(members) do
			if redis.call('EXISTS', keys[i]) == 0 then redis.call('ZREM', index, m) end
		end
	end
end
