-- POST /v1/login with a new code each, and LOGINS_PER_USER codes of one user. Needs a WeChat that
-- takes any code (wxfake --any-code).
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
	local agent = os.getenv("USER_AGENT") or ""
	headers = {
		["Content-Type"] = "application/json",
		["User-Agent"] = agent ~= "" and agent or nil,
	}
end

function request()
	n = n + 1
	local code = run .. "-" .. math.floor(n / per_user) .. "~" .. n
	local path = os.getenv("LOGIN_PATH") or "/v1/login"
	return wrk.format("POST", path, headers, '{"code":"' .. code .. '"}')
end
