-- GET /internal/auth with living third_sessions, one after the other. TOKENS: a file with one in each line.
require("report")
local requests, n = {}, 0

function init(args)
	for token in io.lines(os.getenv("TOKENS")) do
		requests[#requests + 1] = wrk.format("GET", os.getenv("AUTH_PATH") or "/internal/auth", {["Authorization"] = "Bearer " .. token})
	end
	n = math.random(#requests)
end

function request()
	n = n % #requests + 1
	return requests[n]
end
