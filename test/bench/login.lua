-- POST /v1/login with a new code each, and LOGINS_PER_USER codes of one user. Needs a WeChat that takes any code (wxfake --any-code).
require("report")
local thread = 0

function setup(t)
	t:set("id", thread)
	thread = thread + 1
end

function init(args)
	math.randomseed(os.time() + id)
	run = string.format("%x%x", math.random(1, 2147483647), id)
	n = 0
	per_user = tonumber(os.getenv("LOGINS_PER_USER") or "1")
	headers = {["Content-Type"] = "application/json", ["User-Agent"] = (os.getenv("USER_AGENT") or "") ~= "" and os.getenv("USER_AGENT") or nil}
end

function request()
	n = n + 1
	return wrk.format("POST", os.getenv("LOGIN_PATH") or "/v1/login", headers, '{"code":"' .. run .. "-" .. math.floor(n / per_user) .. "~" .. n .. '"}')
end
