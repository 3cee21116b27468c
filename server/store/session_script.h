/* How sessions lie in Redis, and the scripts that change them. Only session.c includes it.
 *
 * A session is one string under the hash of its token; a user is one sorted set beside it, in the same slot. Every change of the two
 * is one script, so nobody ever sees half of it.
 *
 *   session   created(ms)|seen(s after that)|grace(ms)|appid|openid|unionid|ip|user agent     or, once it was ended,  !reason
 *   user      session ids, scored by the second of Redis' clock in which they end; the newest session_key, scored 1, and the
 *             different one before it, scored 2: as it came, or sealed: ~, six bytes to know it by, and what crypt_seal made
 *
 * grace is what the key's TTL outlasts the session by: one that max_age cuts short leaves the reason "expired" behind for as long as
 * it would have lived. The set costs a login O(log n) however many sessions a user has made, and the dead leave it by their score.
 * Lengths count: with ids of 20 characters, scores in seconds and a sealed key below 64 bytes the set of a user is one listpack in
 * one small allocation (redis.conf: zset-max-listpack-value). */
#ifndef STORE_SESSION_SCRIPT_H
#define STORE_SESSION_SCRIPT_H

#include "io/redis.h"

/* now, now_s; bury(): end one session (DEL first: a Redis that is full takes the shorter reason only from a script that has written
 * before, and a session must end all the same); tidy(): sweep a user's dead ones out and move the set's end to that of the longest left;
 * user_of(): a user's name, as it stands in its key, from a session's value. */
#define PRELUDE \
	"local t = redis.call('TIME') " \
	"local now_s = tonumber(t[1]) " \
	"local now = now_s * 1000 + math.floor(t[2] / 1000) " \
	"local function grace_of(v) return tonumber(string.match(v, '^%d+|%d+|(%d+)|')) or 0 end " \
	"local function bury(key, reason) " \
	"  local v = redis.call('GET', key) " \
	"  if not v or string.sub(v, 1, 1) == '!' then return end " \
	"  local left = redis.call('PTTL', key) " \
	"  if left <= grace_of(v) then return end " \
	"  redis.call('DEL', key) " \
	"  redis.call('SET', key, '!' .. reason, 'PX', left) " \
	"end " \
	"local function tidy(user) " \
	"  redis.call('ZREMRANGEBYSCORE', user, '(2', now_s - 1) " \
	"  local last = tonumber(redis.call('ZRANGE', user, -1, -1, 'WITHSCORES')[2]) or 0 " \
	"  if last > 2 then redis.call('EXPIREAT', user, last) else redis.call('DEL', user) end " \
	"end " \
	"local function user_of(value) " \
	"  local appid, openid = string.match(value, '^%d+|%d+|%d+|([^|]*)|([^|]*)|') " \
	"  return appid and string.sub(redis.sha1hex(appid .. ':' .. openid), 1, 20) " \
	"end "

/* KEYS session user; ARGV ttl max_age rest id session-base max_per_user session_key what-it-begins-with-if-it-is-the-same.
 * The life in ms, then the ids of those it replaced: the oldest, and no more of them than a thousand, or the answer might be longer than
 * we take (of the rest a memory hears by invalidation alone). A login is younger than all before it whatever Redis' clock says, which
 * may be set back, or stand still for two logins in one millisecond. */
static struct redis_script create_script = {.text = PRELUDE
	"local user, ttl, max = KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[6]) "
	"local life = math.min(ttl, tonumber(ARGV[2])) "
	"local out = {life} "
	"redis.call('ZREMRANGEBYSCORE', user, '(2', now_s - 1) "
	"local newest = redis.call('ZRANGEBYSCORE', user, 1, 1)[1] "
	"if not newest or string.sub(newest, 1, #ARGV[8]) ~= ARGV[8] then "
	"  redis.call('ZREMRANGEBYSCORE', user, 2, 2) "
	"  if newest then redis.call('ZADD', user, 2, newest) end "
	"  redis.call('ZADD', user, 1, ARGV[7]) "
	"end "
	"if max > 0 then "
	"  local live = {} "
	"  for _, id in ipairs(redis.call('ZRANGEBYSCORE', user, '(2', '+inf')) do "
	"    local created = string.match(redis.call('GET', ARGV[5] .. id) or '', '^%d+') "
	"    if created then live[#live + 1] = {id, tonumber(created)} else redis.call('ZREM', user, id) end "
	"  end "
	"  table.sort(live, function(a, b) return a[2] < b[2] end) "
	"  if #live > 0 then now = math.max(now, live[#live][2] + 1) end "
	"  for i = 1, #live - max + 1 do "
	"    bury(ARGV[5] .. live[i][1], 'replaced') "
	"    redis.call('ZREM', user, live[i][1]) "
	"    if #out <= 1000 then out[#out + 1] = live[i][1] end "
	"  end "
	"end "
	"redis.call('SET', KEYS[1], string.format('%.0f|0|%.0f|', now, ttl - life) .. ARGV[3], 'PX', ttl) "
	"redis.call('ZADD', user, math.ceil((now + life) / 1000), ARGV[4]) "
	"tidy(user) "
	"return out"};

/* KEYS session; ARGV ttl max_age id user-base. What remains of the session in ms, or what now stands in its place: !reason or nil. A
 * user's set that was lost (evicted, deleted by hand) comes back with its living sessions. */
static struct redis_script renew_script = {.text = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"local created, rest = string.match(v or '', '^(%d+)|%d+|%d+|(.*)$') "
	"if not created then return v end "
	"local ttl = tonumber(ARGV[1]) "
	"local life = math.min(ttl, created + tonumber(ARGV[2]) - now) "
	"if life <= 0 then return '!expired' end "
	"redis.call('SET', KEYS[1], string.format('%s|%.0f|%.0f|', created, math.max(0, math.floor((now - created) / 1000)), ttl - life) .. rest, 'PX', ttl) "
	"local user = ARGV[4] .. user_of(v) "
	"redis.call('ZADD', user, math.ceil((now + life) / 1000), ARGV[3]) "
	"tidy(user) "
	"return life"};

/* KEYS session; ARGV reason id user-base user-name. user-name: only if it is this user's; empty: whoever's. */
static struct redis_script end_script = {.text = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"local name = v and user_of(v) "
	"if not name or (ARGV[4] ~= '' and ARGV[4] ~= name) then return 0 end "
	"bury(KEYS[1], ARGV[1]) "
	"redis.call('ZREM', ARGV[3] .. name, ARGV[2]) "
	"tidy(ARGV[3] .. name) "
	"return 1"};

/* KEYS user; ARGV session-base reason limit. The ids it ended; as many as the limit: there may be more. */
static struct redis_script end_user_script = {.text = PRELUDE
	"local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '(2', '+inf', 'LIMIT', 0, ARGV[3]) "
	"for _, id in ipairs(ids) do "
	"  bury(ARGV[1] .. id, ARGV[2]) "
	"  redis.call('ZREM', KEYS[1], id) "
	"end "
	"tidy(KEYS[1]) "
	"return ids"};

/* KEYS user; ARGV session-base limit. id, value, what remains in ms; and so on, those that end last first. Forgets those that are no more. */
static struct redis_script list_script = {.text = PRELUDE
	"local out = {} "
	"for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', '(2', 'LIMIT', 0, ARGV[2])) do "
	"  local v = redis.call('GET', ARGV[1] .. id) "
	"  if v and string.sub(v, 1, 1) ~= '!' then "
	"    out[#out + 1] = id "
	"    out[#out + 1] = v "
	"    out[#out + 1] = redis.call('PTTL', ARGV[1] .. id) - grace_of(v) "
	"  else "
	"    redis.call('ZREM', KEYS[1], id) "
	"  end "
	"end "
	"tidy(KEYS[1]) "
	"return out"};

#endif
