-- KEYS session index
-- ARGV ttl max_age id session-base name
-- Answers what remains of the session in ms, or what now stands in its place: !reason or nil. An index that was lost (evicted, deleted
-- by hand) comes back with the sessions that are used.
local v = redis.call('GET', KEYS[1])
local s = read(v)
if not s then return v or (redis.call('EXISTS', mark(KEYS[1])) == 1 and '!expired') end
local now = clock_ms()
local index, ttl, member = KEYS[2], tonumber(ARGV[1]), ARGV[5] .. s.order .. ARGV[3]
local created = s.order - s.ahead
local life = math.min(ttl, created + tonumber(ARGV[2]) - now)
if life <= 0 then
	bury(KEYS[1], 'expired')
	redis.call('ZREM', index, member)
	return '!expired'
end
local last, keys = newest(index, ARGV[5], ARGV[4])
if last and last > member then s.keys = keys end
put(KEYS[1], s, math.floor((now - created) / 1000), life, ttl)
enter(index, member, life)
sweep(index, ARGV[4], now .. member)
return life
