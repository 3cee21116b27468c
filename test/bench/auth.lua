-- GET /internal/auth with living third_sessions, one after the other. TOKENS: a file with one in
-- each line; AUTH_PATH: another path, %s in it being the token.
require("report")
local requests, n = {}, 0

function init(args)
	local path = os.getenv("AUTH_PATH") or "/internal/auth"
	for token in io.lines(os.getenv("TOKENS")) do
		local headers = {["Authorization"] = "Bearer " .. token}
		requests[#requests + 1] = wrk.format("GET", (path:gsub("%%s", token)), headers)
	end
	n = math.random(#requests)
end

function request()
	n = n % #requests + 1
	return requests[n]
end
