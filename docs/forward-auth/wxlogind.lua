-- Asks wxlogind who is calling. Sets txn.wx_appid, txn.wx_openid, txn.wx_unionid; or answers 401 or
-- 503 as wxlogind did; or does neither, and haproxy.cfg answers 503.
local internal_token = os.getenv("WX_INTERNAL_TOKEN")
local passed_on = {
	"content-type", "cache-control", "www-authenticate", "retry-after", "x-wx-reason",
	"x-request-id",
}

local function first(headers, name)
	return headers[name] and headers[name][0]
end

-- What wxlogind is asked with, only as long as it takes it: whatever else the caller sends must not
-- make the check fail. A session's token has 43 characters.
local function sane(value, most)
	return value and #value <= most and not value:find("[^ -~]") and value
end

local function authorization(headers)
	local value = first(headers, "authorization")
	if value and value:lower():find("^bearer") then
		return {sane(value, 256) or "Bearer malformed"}
	end
end

local function third_session(headers)
	local value = first(headers, "x-third-session")
	return value and {sane(value, 256) or "malformed"}
end

local function as_it_is(headers, name)
	local value = sane(first(headers, name), 64)
	return value and {value}
end

local function answer_as(txn, res)
	local reply = txn:reply{status = res.status}
	for _, name in ipairs(passed_on) do
		local value = first(res.headers, name)
		if value then
			reply:add_header(name, value)
		end
	end
	reply:set_body(res.body)
	txn:done(reply)
end

core.register_action("wx_auth", {"http-req"}, function(txn)
	local theirs = txn.http:req_get_headers()
	local res = core.httpclient():get{
		url = "http://wxlogind/internal/auth",
		dst = "abns@wx_auth",
		timeout = 6000, -- longer than what the section wx_auth of haproxy.cfg takes at most
		headers = {
			["authorization"] = authorization(theirs),
			["x-third-session"] = third_session(theirs),
			["x-request-id"] = as_it_is(theirs, "x-request-id"),
			["traceparent"] = as_it_is(theirs, "traceparent"),
			["x-forwarded-for"] = {txn.f:src()},
			["x-internal-token"] = internal_token and {internal_token},
		},
	}
	if res.status == 200 then
		txn:set_var("txn.wx_appid", first(res.headers, "x-wx-appid") or "")
		txn:set_var("txn.wx_unionid", first(res.headers, "x-wx-unionid") or "")
		txn:set_var("txn.wx_openid", first(res.headers, "x-wx-openid") or "")
	elseif (res.status == 401 and first(res.headers, "x-wx-reason"))
		or (res.status == 503 and first(res.headers, "retry-after")) then
		answer_as(txn, res)
	end
end)
