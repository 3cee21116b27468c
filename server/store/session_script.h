/* How sessions lie in Redis, and the scripts that change them. Only session.c includes it.
 *
 * A session is one string under the hash of its token; a user is one sorted set beside it, in the same slot. Every change of the two
 * is one script, so nobody ever sees half of it. Values are text, fields apart by '|':
 *
 *   session   created(ms)|seen(s)|grace(ms)|appid|openid|unionid|ip|user agent     or, once it was ended,  !reason
 *   user      scored by the ms of Redis' clock:  <session id>:<created>  at the session's end; and without an end
 *             1<mark><session_key>, the newest, and 2<mark><session_key>, the one before
 *
 * The set costs a login O(log n) however many sessions a user has made, and the dead leave it by their score. grace (ms) is what the
 * key's TTL outlasts the session by: one that max_age cuts short leaves the reason "expired" behind for as long as it would have lived. */
#ifndef STORE_SESSION_SCRIPT_H
#define STORE_SESSION_SCRIPT_H

/* now; bury(): end one session; tidy(): sweep a user's dead ones out and move the set's end to that of the longest left; user_of():
 * a user's name, as it stands in its key, from a session's value. */
#define PRELUDE \
	"local t = redis.call('TIME') " \
	"local now = t[1] * 1000 + math.floor(t[2] / 1000) " \
	"local function grace_of(v) return tonumber(string.match(v, '^%d+|%d+|(%d+)|')) or 0 end " \
	"local function bury(key, reason) " \
	"  local v = redis.call('GET', key) " \
	"  if not v or string.sub(v, 1, 1) == '!' then return end " \
	"  local left = redis.call('PTTL', key) " \
	"  if left > grace_of(v) then redis.call('SET', key, '!' .. reason, 'PX', left) end " \
	"end " \
	"local function tidy(user) " \
	"  redis.call('ZREMRANGEBYSCORE', user, '-inf', now) " \
	"  local last = redis.call('ZREVRANGEBYSCORE', user, '(+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] " \
	"  if last then redis.call('PEXPIRE', user, last - now) else redis.call('DEL', user) end " \
	"end " \
	"local function user_of(value) " \
	"  local appid, openid = string.match(value, '^%d+|%d+|%d+|([^|]*)|([^|]*)|') " \
	"  return appid and string.sub(redis.sha1hex(appid .. ':' .. openid), 1, 24) " \
	"end "

/* KEYS session user; ARGV ttl max_age rest id session-base max_per_user mark session_key. The life in ms, then the ids of those it replaced. */
static const char create_script[] = PRELUDE
	"local user, ttl, max = KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[6]) "
	"local life = math.min(ttl, tonumber(ARGV[2])) "
	"local out = {life} "
	"tidy(user) "
	"for _, m in ipairs(redis.call('ZRANGEBYSCORE', user, '+inf', '+inf')) do "
	"  local newest = string.sub(m, 1, 1) == '1' "
	"  if string.sub(m, 2, 17) == ARGV[7] then redis.call('ZREM', user, m) "
	"  elseif newest then "
	"    redis.call('ZREM', user, m) "
	"    for _, o in ipairs(redis.call('ZRANGEBYSCORE', user, '+inf', '+inf')) do redis.call('ZREM', user, o) end "
	"    redis.call('ZADD', user, '+inf', '2' .. string.sub(m, 2)) "
	"    break "
	"  end "
	"end "
	"redis.call('ZADD', user, '+inf', '1' .. ARGV[7] .. ARGV[8]) "
	"if max > 0 then "
	"  local live = redis.call('ZRANGEBYSCORE', user, '-inf', '(+inf') "
	"  table.sort(live, function(a, b) return tonumber(string.sub(a, 24)) < tonumber(string.sub(b, 24)) end) "
	"  for i = 1, #live - max + 1 do "
	"    local id = string.sub(live[i], 1, 22) "
	"    bury(ARGV[5] .. id, 'replaced') "
	"    redis.call('ZREM', user, live[i]) "
	"    out[#out + 1] = id "
	"  end "
	"end "
	"redis.call('SET', KEYS[1], string.format('%.0f|%d|%.0f|', now, t[1], ttl - life) .. ARGV[3], 'PX', ttl) "
	"redis.call('ZADD', user, now + life, string.format('%s:%.0f', ARGV[4], now)) "
	"tidy(user) "
	"return out";

/* KEYS session; ARGV ttl max_age id user-base. What remains of the session in ms, or what now stands in its place: !reason or nil. */
static const char renew_script[] = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"local created, rest = string.match(v or '', '^(%d+)|%d+|%d+|(.*)$') "
	"if not created then return v end "
	"local ttl = tonumber(ARGV[1]) "
	"local life = math.min(ttl, created + tonumber(ARGV[2]) - now) "
	"if life <= 0 then return '!expired' end "
	"redis.call('SET', KEYS[1], string.format('%s|%d|%.0f|', created, t[1], ttl - life) .. rest, 'PX', ttl) "
	"local user = ARGV[4] .. user_of(v) "
	"redis.call('ZADD', user, 'XX', now + life, ARGV[3] .. ':' .. created) "
	"if redis.call('PTTL', user) < life then redis.call('PEXPIRE', user, life) end "
	"return life";

/* KEYS session; ARGV reason id user-base user-name. user-name: only if it is this user's; empty: whoever's. */
static const char end_script[] = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"local name = v and user_of(v) "
	"if not name or (ARGV[4] ~= '' and ARGV[4] ~= name) then return 0 end "
	"bury(KEYS[1], ARGV[1]) "
	"local user = ARGV[3] .. name "
	"redis.call('ZREM', user, ARGV[2] .. ':' .. string.match(v, '^%d+')) "
	"tidy(user) "
	"return 1";

/* KEYS user; ARGV session-base reason limit. The ids it ended; as many as the limit: there may be more. */
static const char end_user_script[] = PRELUDE
	"local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(+inf', 'LIMIT', 0, ARGV[3]) "
	"for i, m in ipairs(ids) do "
	"  ids[i] = string.sub(m, 1, 22) "
	"  bury(ARGV[1] .. ids[i], ARGV[2]) "
	"  redis.call('ZREM', KEYS[1], m) "
	"end "
	"tidy(KEYS[1]) "
	"return ids";

/* KEYS user; ARGV session-base limit. id, value, what remains in ms; and so on, those that end last first. Forgets those that are no more. */
static const char list_script[] = PRELUDE
	"local out = {} "
	"for _, m in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], '(+inf', now, 'LIMIT', 0, ARGV[2])) do "
	"  local id = string.sub(m, 1, 22) "
	"  local v = redis.call('GET', ARGV[1] .. id) "
	"  if v and string.sub(v, 1, 1) ~= '!' then "
	"    out[#out + 1] = id "
	"    out[#out + 1] = v "
	"    out[#out + 1] = redis.call('PTTL', ARGV[1] .. id) - grace_of(v) "
	"  else "
	"    redis.call('ZREM', KEYS[1], m) "
	"  end "
	"end "
	"tidy(KEYS[1]) "
	"return out";

#endif
