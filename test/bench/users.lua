-- REQUESTS times PUT /v1/user, each with a value that is new, for as many users as TOKENS has
-- lines; then stops, and says how long it took.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } timespec_t; int clock_gettime(int, timespec_t *);")
tokens, n, answered, bad = {}, 0, 0, 0
local t = ffi.new("timespec_t")

local function now()
	ffi.C.clock_gettime(1, t)
	return tonumber(t.s) + tonumber(t.ns) / 1e9
end

function setup(thread)
	worker = thread
end

function init(args)
	for token in io.lines(os.getenv("TOKENS")) do
		tokens[#tokens + 1] = token
	end
	want, run = tonumber(os.getenv("REQUESTS")), os.getenv("RUN")
end

function request()
	began = began or now()
	n = n + 1
	local headers = {
		["Authorization"] = "Bearer " .. tokens[n % #tokens + 1],
		["Content-Type"] = "application/json",
	}
	local name, picture = run .. "-" .. n, "https://example.org/" .. n .. ".png"
	return wrk.format("PUT", "/v1/user", headers, '{"nickName":"n' .. name
		.. '","gender":1,"city":"Guangzhou","avatarUrl":"' .. picture .. '"}')
end

function response(status)
	answered = answered + 1
	bad = bad + (status == 200 and 0 or 1)
	if answered == want then
		seconds = now() - began
		wrk.thread:stop()
	end
end

function done(summary, latency)
	io.write(string.format('\n{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,'
		.. '"errors":%d}\n', worker:get("answered"), worker:get("seconds") or -1,
		latency:percentile(50), latency:percentile(99), worker:get("bad")))
end
