-- KEYS session index
-- ARGV ttl max_age id session-base name
-- Answers what remains of the session in ms, or what now stands in its place: !reason or nil. An
-- index that was lost (evicted, deleted by hand) comes back with the sessions that are used.
local value = redis.call('GET', KEYS[1])
local order, ahead, who, unionid, from, keys = string.match(value or '',
	'^(%d+)|%d*|(%d*)|([^|]*|[^|]*|)([^|]*)(|[^|]*|[^|]*|)(.*)$')
if not order then return value or (redis.call('EXISTS', mark(KEYS[1])) == 1 and '!expired') end
local now = clock_ms()
local index, ttl, id, base, name = KEYS[2], tonumber(ARGV[1]), ARGV[3], ARGV[4], ARGV[5]
local member, created = name .. order .. id, order - (tonumber(ahead) or 0)
local life = math.min(ttl, created + tonumber(ARGV[2]) - now)
if life <= 0 then
	bury(KEYS[1], 'expired')
	redis.call('ZREM', index, member)
	return '!expired'
end
local last, latest_unionid, latest_keys = newest(index, name, base)
if last and last > member then
	keys = latest_keys
	if latest_unionid ~= '' then unionid = latest_unionid end
end
local seen = string.format('%d', math.max(0, math.floor((now - created) / 1000)))
life = string.format('%d', life)
local renewed = order .. '|' .. seen .. '|' .. ahead .. '|' .. who .. unionid .. from .. keys
put(KEYS[1], renewed, life, tonumber(life) < ttl and ARGV[1] or '')
enter(index, member, life)
if is_one_in_eight(id) then sweep(index, base, now) end
return tonumber(life)
