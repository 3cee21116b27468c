-- KEYS index
-- ARGV session-base name
-- Answers the user's session_keys, the newest first.
local _, _, keys = newest(KEYS[1], ARGV[2], ARGV[1])
local out = {}
while keys and keys ~= '' do
	local n = string.byte(keys)
	out[#out + 1] = string.sub(keys, 2, 1 + n)
	keys = string.sub(keys, 2 + n)
end
return out
