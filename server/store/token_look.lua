-- KEYS token lock bad asked
-- ARGV report-hash drop holder lock-ms ahead-ms bad-ms asked-ms
-- Answers {value, left, ours, lock}. value is empty where there is none to give: the caller renews
-- (ours is 1), waits, or fails. A token stays until WeChat has named another. About one that a
-- caller only doubts WeChat is asked once in asked-ms, for all. One that is to be dropped is kept
-- back from everybody while it is renewed.
local v, lock, ours = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]), 0
local left = v and redis.call('PTTL', KEYS[1]) or 0
local renewing = lock and string.sub(lock, 1, 1) ~= '!'
local give, must, drop = true, left < tonumber(ARGV[5]), ARGV[2] == '1'
local function is_it(hash)
	return v and hash and hash ~= '' and string.sub(v, 1, #hash) == hash
end
if is_it(ARGV[1]) then
	if drop or renewing then
		give, must = false, true
	elseif not lock and redis.call('SET', KEYS[4], '1', 'PX', ARGV[7], 'NX') then
		give, must = false, true
	end
elseif renewing and is_it(redis.call('GET', KEYS[3])) then
	give = false
end
if must and not lock then
	redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
	ours = 1
	if drop and (is_it(ARGV[1]) or not v) then
		redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[6])
	end
end
return {give and v or '', left, ours, lock or ''}
