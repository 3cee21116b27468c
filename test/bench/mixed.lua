-- One login to a hundred questions after a session, on the public side: GET /v1/session.
require("report")
local requests, n = {}, 0
local thread = 0

function setup(t)
	t:set("id", thread)
	thread = thread + 1
end

function init(args)
	for token in io.lines(os.getenv("TOKENS")) do
		local headers = {["Authorization"] = "Bearer " .. token}
		requests[#requests + 1] = wrk.format("GET", "/v1/session", headers)
	end
	math.randomseed(os.time() + id)
	run = string.format("%x%x", math.random(1, 2147483647), id)
end

function request()
	n = n + 1
	if n % 101 == 0 then
		local headers = {["Content-Type"] = "application/json"}
		local body = '{"code":"m' .. run .. "-" .. n .. '"}'
		return wrk.format("POST", "/v1/login", headers, body)
	end
	return requests[n % #requests + 1]
end
