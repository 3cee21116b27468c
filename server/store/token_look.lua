-- KEYS token lock bad
-- ARGV bad-hash holder lock-ms ahead-ms bad-ms
-- Answers {value, left, ours, lock}. A report of some other token says nothing about the one there is, and must not hide the one
-- reported before, which is being renewed.
local v = redis.call('GET', KEYS[1])
if ARGV[1] ~= '' then
	if v and string.sub(v, 1, #ARGV[1]) == ARGV[1] then
		redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[5])
		redis.call('DEL', KEYS[1])
		v = false
	elseif not v then
		redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[5], 'NX')
	end
end
local left = v and redis.call('PTTL', KEYS[1]) or 0
local lock, ours = redis.call('GET', KEYS[2]), 0
if left < tonumber(ARGV[4]) and not lock then
	redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
	ours = 1
end
return {v or '', left, ours, lock or ''}
