-- A login and a check as one writes them for nginx with Lua: WeChat over kept connections, sessions in Redis over a pool. It does less
-- than wxlogind: no claim on the code, no index of a user's sessions, session_key as it came.
local cjson, redis, ffi = require "cjson.safe", require "nginx.redis", require "ffi"
local TTL = 604800
local POOL = {pool_size = 128, backlog = 16384} -- more callers than connections wait for one
ffi.cdef "int RAND_bytes(unsigned char *buf, int num);"
local M, random = {}, ffi.new("unsigned char[32]")

local function token()
	assert(ffi.C.RAND_bytes(random, 32) == 1)
	return (ngx.encode_base64(ffi.string(random, 32), true):gsub("+", "-"):gsub("/", "_"))
end

local function answer(status, body)
	ngx.status = status
	ngx.header["Content-Length"] = #body
	ngx.print(body)
end

local function with_redis(path, fn)
	local r = redis:new()
	r:set_timeout(2000)
	if not r:connect(path, POOL) then
		return nil
	end
	local value, err = fn(r)
	if not err then
		r:set_keepalive(60000)
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
		args = {appid = appid, secret = secret, js_code = asked.code, grant_type = "authorization_code"},
	})
	local user = reply.status == 200 and cjson.decode(reply.body)
	if not user then
		return answer(503, '{"error":"wechat_unavailable"}')
	elseif not user.openid then
		return answer(401, cjson.encode {error = "invalid_code", errcode = user.errcode})
	end
	local t = token()
	local session = cjson.encode {appid = appid, openid = user.openid, unionid = user.unionid or "", session_key = user.session_key}
	if not with_redis(redis_path, function(r) return r:set("s:" .. t, session, "EX", TTL) end) then
		return answer(503, '{"error":"store_unavailable"}')
	end
	answer(200, cjson.encode {third_session = t, expires_in = TTL})
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
