-- What the scripts of sessions share. Each block (there is no blank line in one) defines one
-- helper. make puts before a script those helpers that it uses, and no others
-- (scripts/lua-compose). How sessions lie in Redis: session.h and session_create.lua.

-- Redis' clock in ms.
local function clock_ms()
	local t = redis.call('TIME')
	return tonumber(t[1]) * 1000 + math.floor(t[2] / 1000)
end

-- What a session has in common with the user's others: the unionid and the session_keys. nil when
-- the value is none of a session.
local function shared(value)
	return string.match(value or '', '^%d+|%d*|%d*|[^|]*|[^|]*|([^|]*)|[^|]*|[^|]*|(.*)$')
end

-- The value with another unionid.
local function with_unionid(value, unionid)
	local before, after = string.match(value, '^(%d+|%d*|%d*|[^|]*|[^|]*|)[^|]*(|.*)$')
	return before .. unionid .. after
end

-- The key that says that max_age ends this session.
local function mark(key)
	return string.sub(key, 1, -21) .. '!' .. string.sub(key, -20)
end

-- The value of a session that lives, its unionid and its session_keys; else nil.
local function alive(key)
	local value = redis.call('GET', key)
	local unionid, keys = shared(value)
	if keys then return value, unionid, keys end
end

-- A key's TTL in ms, for SET PX, which refuses the 0 of a last millisecond.
local function left(key)
	return math.max(1, redis.call('PTTL', key))
end

-- A number as text; 0 is empty.
local function digits(n)
	return n > 0 and string.format('%d', n) or ''
end

-- Writes a session. ttl, unless it is empty, is longer than its life: it is marked, since max_age
-- ends it.
local function put(key, value, life, ttl)
	redis.call('SET', key, value, 'PX', life)
	if ttl ~= '' then redis.call('SET', mark(key), '', 'PX', ttl) end
end

-- Ends a session. DEL first: a Redis that is full takes the shorter value only from a script that
-- has written before, and a session must end all the same.
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

-- The last member of the user's part of the index: the newest session, unless it is dead. Numbers
-- that Redis is to read are given as text: Lua would print them with printf.
local function last_of(index, name)
	local from, to = range_of(name)
	return redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', '0', '1')[1]
end

-- The user's newest session that lives: its member of the index, the unionid and the session_keys.
-- The dead after it leave the index, a thousand at most. last: what last_of answered, if it was
-- asked already.
local function newest(index, name, base, last)
	for _ = 1, 1000 do
		last = last or last_of(index, name)
		if not last then return nil end
		local _, unionid, keys = alive(base .. id_of(last))
		if keys then return last, unionid, keys end
		redis.call('ZREM', index, last)
		last = nil
	end
end

-- Those of the members whose sessions live; the others leave the index.
local function living(index, base, members)
	local keys, live = {}, {}
	for i, m in ipairs(members) do keys[i] = base .. id_of(m) end
	if #keys == 0 or redis.call('EXISTS', unpack(keys)) == #keys then return members end
	for i, m in ipairs(members) do
		if alive(keys[i]) then live[#live + 1] = m else redis.call('ZREM', index, m) end
	end
	return live
end

-- Ends the user's oldest sessions until no more than most are left; their ids go to out. It ends
-- 250 at most, which takes some ms: true says that it is to be called again. The dead, which count
-- for nothing, are looked for among as many as are to be ended and a hundred more: they are the
-- oldest as a rule. While some are found and not all of the user's were looked at, nothing is
-- ended.
local function make_room(index, name, base, most, out)
	local from, to = range_of(name)
	local count = redis.call('ZLEXCOUNT', index, from, to)
	if count <= most then return false end
	local some = math.min(count - most, 250) + 100
	local looked = redis.call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, some)
	local live = living(index, base, looked)
	local over = count - (#looked - #live) - most
	if #live < #looked and #looked < count then return over > 0 end
	for i = 1, math.min(over, 250) do
		bury(base .. id_of(live[i]), 'replaced')
		redis.call('ZREM', index, live[i])
		out[#out + 1] = id_of(live[i])
	end
	return over > 250
end

-- Gives the unionid to the sessions that the user has, the thousand newest; the ids of those that
-- had another go to out.
local function spread(index, name, base, unionid, out)
	local from, to = range_of(name)
	for _, m in ipairs(redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1000)) do
		local key = base .. id_of(m)
		local value, theirs = alive(key)
		if value and theirs ~= unionid then
			redis.call('SET', key, with_unionid(value, unionid), 'PX', left(key))
			out[#out + 1] = id_of(m)
		end
	end
end

-- Enters a session, whose life is so many ms, into the index, which is to last as long. It is given
-- an eighth more, a day at most, so that not every login has to move its end.
local function enter(index, member, life)
	redis.call('ZADD', index, '0', member)
	life = tonumber(life)
	if redis.call('PTTL', index) < life then
		local longer = life + math.floor(math.min(life / 8, 86400000))
		redis.call('PEXPIRE', index, string.format('%d', longer))
	end
end

-- Whether this session is one that sweeps: an id is as good as a dice.
local function is_one_in_eight(id)
	return string.byte(id, -1) % 8 == 0
end

-- Looks at sixteen members of the index, somewhere, and goes on while it finds dead ones: these
-- leave. The clock is a dice, too.
local function sweep(index, base, now)
	for round = 1, 25 do
		local at = (now + round * 7919) % math.max(1, redis.call('ZCARD', index))
		local members = redis.call('ZRANGE', index, at, at + 15)
		if #living(index, base, members) == #members then return end
	end
end
