-- KEYS session index
-- ARGV ttl max_age rest id session-base max_per_user session_key what-it-begins-with-if-it-is-the-same name
-- Answers its life in ms, then the ids of those it replaced: the oldest, and no more of them than a thousand, or the answer might be
-- longer than we take (of the rest a memory hears by invalidation alone).
--
-- A session is one string under the hash of its token. The users of a tag (session.h) share one sorted set beside it, in the same
-- slot: the index. Every change of a session and the index is one script, so nobody ever sees half of it.
--
--   session   order|seen(s after it was created)|ahead(ms)|appid|openid|unionid|ip|user agent|session_keys
--             or, once it was ended, !reason
--   mark      for as long as ttl, where max_age will end the session before that: who asks then is told "expired"
--   index     a user's name (16 hex digits), order (13 digits) and id (20 characters) of each session, all scored 0 and so in the
--             order of their bytes: a user's sessions stand together, the oldest first
--
-- order is when the session was created, in ms, but always after the user's sessions before it: Redis' clock may be set back, or
-- stand still for two logins in one millisecond. ahead is what that added. Empty is 0, in seen and ahead.
--
-- session_keys are the user's newest and the different one before it, each after its length in one byte, as store/seal.h makes them.
-- A user's newest session has them, and so has every one that will outlive it: a renewal takes them from the newest, and a newest
-- session that is ended hands them to those that remain. So they go with the user's last session, however that ends.
--
-- The index only says where to look: what is no more leaves it when its user is looked at, and each script that makes it grow looks
-- at three more of its members, somewhere, and goes on while it finds dead ones: few of them stay, though nobody looks at theirs. Its
-- TTL is that of the session that lasts longest. Why not a key for each user: it would cost as much as the session. Up to Redis'
-- zset-max-listpack-entries the members are one small allocation.
local index, ttl, max_age, id, base = KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[5]
local max, keys, same, name = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local now = clock_ms()
local life, order = math.min(ttl, max_age), now
local out = {life}
local last, before = newest(index, name, base)
if last then
	order = math.max(now, tonumber(string.sub(last, 17, 29)) + 1)
	if string.sub(before, 1, #same) == same then
		keys = before
	else
		keys = keys .. string.sub(before, 1, 1 + (string.byte(before) or 0))
	end
end
if max > 0 then
	local live = {}
	for _, m in ipairs(redis.call('ZRANGEBYLEX', index, range_of(name))) do
		if alive(base .. id_of(m)) then live[#live + 1] = m else redis.call('ZREM', index, m) end
	end
	for i = 1, #live - max + 1 do
		bury(base .. id_of(live[i]), 'replaced')
		redis.call('ZREM', index, live[i])
		if #out <= 1000 then out[#out + 1] = id_of(live[i]) end
	end
end
local s = {order = string.format('%013.0f', order), ahead = order - now, rest = ARGV[3], keys = keys}
put(KEYS[1], s, 0, life, ttl)
local member = name .. s.order .. id
enter(index, member, life)
sweep(index, base, member)
return out
