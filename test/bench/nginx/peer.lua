-- A login and a check as one writes them for nginx with Lua: WeChat over kept connections, sessions
-- in Redis over a pool. It does less than wxlogind: no claim on the code, no index of a user's
-- sessions, session_key as it came. It is as lean as we could make it: what was measured to cost is
-- done the cheaper way.
require "resty.core" -- the calls of nginx through the FFI
local cjson, redis = require "cjson.safe", require "nginx.redis"
local TTL, POOL = 604800, 128
local ANSWERED = '{"third_session":"%s","expires_in":' .. TTL .. "}"
local FROM_WECHAT = "grant_type=authorization_code&appid=%s&secret=%s&js_code=%s"
local random = assert(io.open("/dev/urandom", "rb")) -- kept open: a read in a hundred logins
local M = {}

local function token()
	return (ngx.encode_base64(random:read(32), true):gsub("[+/]", {["+"] = "-", ["/"] = "_"}))
end

local function answer(status, body)
	ngx.status = status
	ngx.header["Content-Length"] = #body
	ngx.print(body)
end

local function with_redis(path, fn)
	local r = redis:new()
	r:set_timeout(2000)
	if not r:connect(path) then
		return nil
	end
	local value, err = fn(r)
	if not err then
		r:set_keepalive(60000, POOL)
	end
	return value
end

function M.login(redis_path, appid, secret)
	ngx.req.read_body()
	local asked = cjson.decode(ngx.req.get_body_data() or "")
	if type(asked) ~= "table" or type(asked.code) ~= "string" then
		return answer(400, '{"error":"invalid_request"}')
	end
	local reply = ngx.location.capture("/wechat", {
		args = FROM_WECHAT:format(appid, secret, ngx.escape_uri(asked.code)),
	})
	local user = reply.status == 200 and cjson.decode(reply.body)
	if not user then
		return answer(503, '{"error":"wechat_unavailable"}')
	elseif not user.openid then
		return answer(401, cjson.encode {error = "invalid_code", errcode = user.errcode})
	end
	local t = token()
	local session = cjson.encode {
		appid = appid, openid = user.openid, unionid = user.unionid or "",
		session_key = user.session_key,
	}
	local function save(r) return r:set("s:" .. t, session, "EX", TTL) end
	if not with_redis(redis_path, save) then
		return answer(503, '{"error":"store_unavailable"}')
	end
	answer(200, ANSWERED:format(t))
end

function M.auth(redis_path)
	local t = (ngx.var.http_authorization or ""):match "^Bearer ([%w_-]+)$"
	local value = t and with_redis(redis_path, function(r) return r:get("s:" .. t) end)
	if not value then
		return answer(503, "")
	elseif value == ngx.null then
		return answer(401, "")
	end
	local session = cjson.decode(value)
	ngx.header["X-Wx-Appid"] = session.appid
	ngx.header["X-Wx-Openid"] = session.openid
	ngx.header["X-Wx-Unionid"] = session.unionid
	answer(200, "")
end

return M
