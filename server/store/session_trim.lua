-- KEYS index
-- ARGV session-base name max_per_user
-- Goes on where a login had too many sessions to end. Answers 1 when more are to go, then the ids
-- that it ended.
local out = {0}
if make_room(KEYS[1], ARGV[2], ARGV[1], tonumber(ARGV[3]), out) then out[1] = 1 end
return out
