-- KEYS session index erasing block
-- ARGV life ttl appid|openid| unionid |ip|user-agent| max_per_user session_key
--      what-it-begins-with-if-it-is-the-same name
-- life: what is less of ttl and max_age, in ms. ttl: empty when it is no more than life. Answers 1
-- when the session is there, 1 when more of the user's sessions are to go (session_trim), when it
-- was created in ms, then the ids of those that it changed. Or 0 and why there is none: "erasing"
-- or "blocked".
--
-- A session is one string under the hash of its token. The users of a tag (session.h) share one
-- sorted set beside it, in the same slot: the index. Every change of a session and the index is one
-- script, so nobody ever sees half of it.
--
--   session   order|seen(s after it was created)|ahead(ms)|appid|openid|unionid|ip|user agent|
--             session_keys
--             or, once it was ended, !reason
--   mark      exists as long as ttl, if max_age ends the session before that: until then a caller
--             is told "expired"
--   index     for each session the user's name (16 hex digits), order (13 digits) and id (20
--             characters). All have score 0, so they are sorted by their bytes: the sessions of one
--             user stand together, the oldest first
--
-- order is when the session was created, in ms, but always after the user's sessions before it:
-- Redis' clock may be set back, or stand still for two logins in one millisecond. ahead is what
-- that added. Empty is 0, in seen and ahead.
--
-- session_keys are the user's newest and the different one before it, each after its length in one
-- byte, as store/seal.h makes them. A user's newest session has them, and so has every one that
-- will outlive it: a renewal takes them from the newest, and a newest session that is ended hands
-- them to those that remain. So they go with the user's last session, however that ends.
--
-- unionid is what the newest login brought that brought one, in all of the user's sessions: a check
-- reads it where it reads all else.
--
-- The index only says where to look: what is no more leaves it when its user is looked at, and what
-- makes it grow looks at more of its members, somewhere, and goes on while it finds dead ones: few
-- of them stay, though nobody looks at theirs. It lasts as long as the session that lasts longest.
-- Why not a key for each user: it would cost as much as the session. Up to Redis'
-- zset-max-listpack-entries the members are one small allocation.
local index, life, ttl, who, unionid, from = KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local keys, same, name, id = ARGV[7], ARGV[8], ARGV[9], string.sub(KEYS[1], -20)
local now = clock_ms()
local stop = redis.call('MGET', KEYS[3], KEYS[4])
if stop[2] and (stop[2] == '0' or stop[2] * 1000 > now) then return {0, 'blocked'} end
if stop[1] then return {0, 'erasing'} end
local order, ahead = now, ''
local out = {1, 0, now}
local last = last_of(index, name)
if last or is_one_in_eight(id) then
	-- HELPERS
	local base, max = string.sub(KEYS[1], 1, -21), tonumber(ARGV[6])
	local unionid_before, keys_before
	if last then
		last, unionid_before, keys_before = newest(index, name, base, last)
	end
	if last then -- the user has others
		order = math.max(now, tonumber(string.sub(last, 17, 29)) + 1)
		if order > now then ahead = string.format('%d', order - now) end
		if string.sub(keys_before, 1, #same) == same then
			keys = keys_before
		else
			local first = 1 + (string.byte(keys_before) or 0)
			keys = keys .. string.sub(keys_before, 1, first)
		end
		if make_room(index, name, base, max - 1, out) then out[2] = 1 end
		if unionid == '' then
			unionid = unionid_before
		elseif unionid ~= unionid_before then
			spread(index, name, base, unionid, out)
		end
	end
	if is_one_in_eight(id) then sweep(index, base, now) end
end
order = string.format('%013d', order)
put(KEYS[1], order .. '||' .. ahead .. '|' .. who .. unionid .. from .. keys, life, ttl)
enter(index, name .. order .. id, life)
return out
