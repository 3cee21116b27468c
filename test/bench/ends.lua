-- DELETE /v1/session with third_sessions of a file, each once, from line FIRST on. LOGIN=yes:
-- logs in instead, with a new code each, and writes the third_sessions to that file.
require("report")
local requests, n, file = {}, 0, nil

function init(args)
	if os.getenv("LOGIN") then
		file = io.open(os.getenv("TOKENS"), "a")
		return
	end
	for token in io.lines(os.getenv("TOKENS")) do
		local headers = {["Authorization"] = "Bearer " .. token}
		requests[#requests + 1] = wrk.format("DELETE", "/v1/session", headers)
	end
	n = tonumber(os.getenv("FIRST"))
end

function request()
	n = n + 1
	if not file then return requests[(n - 1) % #requests + 1] end
	local headers = {["Content-Type"] = "application/json"}
	local body = '{"code":"' .. os.time() .. "-" .. n .. '"}'
	return wrk.format("POST", "/v1/login", headers, body)
end

function response(status, headers, body)
	local token = file and body:match('"third_session":"([^"]+)"')
	if token then file:write(token, "\n") file:flush() end
end
