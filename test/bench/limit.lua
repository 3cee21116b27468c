-- POST /v1/login from ADDRESSES addresses in turn, as a trusted proxy would name them.
require("report")
local n, run = 0, ""

function init(args)
	math.randomseed(os.time())
	run = string.format("%x", math.random(1, 2147483647))
	addresses = tonumber(os.getenv("ADDRESSES"))
end

function request()
	n = n + 1
	local a = n % addresses
	return wrk.format("POST", "/v1/login", {
		["Content-Type"] = "application/json",
		["X-Forwarded-For"] = string.format("10.%d.%d.%d",
			math.floor(a / 65536), math.floor(a / 256) % 256, a % 256),
	}, '{"code":"l' .. run .. "-" .. n .. '"}')
end
