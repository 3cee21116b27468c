/* How sessions lie in Redis, and the scripts that change them. Only session.c includes it.
 *
 * A session is one string under the hash of its token. The users of a tag (session.h) share one sorted set beside it, in the same slot:
 * the index. Every change of a session and the index is one script, so nobody ever sees half of it.
 *
 *   session   order|seen(s after it was created)|ahead(ms)|appid|openid|unionid|ip|user agent|session_keys
 *             or, once it was ended, !reason
 *   mark      for as long as ttl, where max_age will end the session before that: who asks then is told "expired"
 *   index     a user's name (16 hex digits), order (13 digits) and id (20 characters) of each session, all scored 0 and so in the order of
 *             their bytes: a user's sessions stand together, the oldest first
 *
 * order is when the session was created, in ms, but always after the user's sessions before it: Redis' clock may be set back, or stand
 * still for two logins in one millisecond. ahead is what that added. Empty is 0, in seen and ahead.
 *
 * session_keys are the user's newest and the different one before it, each after its length in one byte, as store/seal.h makes them. A
 * user's newest session has them, and so has every one that will outlive it: a renewal takes them from the newest, and a newest session
 * that is ended hands them to those that remain. So they go with the user's last session, however that ends.
 *
 * The index only says where to look: what is no more leaves it when its user is looked at, and each script that makes it grow looks at
 * three more of its members, somewhere, and goes on while it finds dead ones: few of them stay, though nobody looks at theirs. Its TTL
 * is that of the session that lasts longest. Why not a key for each user: it would cost as much as the session. Up to Redis'
 * zset-max-listpack-entries the members are one small allocation. */
#ifndef STORE_SESSION_SCRIPT_H
#define STORE_SESSION_SCRIPT_H

#include "io/redis.h"

/* read(value): its parts, or nil when it is no session; alive(key): those of one that lives; put(): writes one. bury(): ends one (DEL
 * first: a Redis that is full takes the shorter reason only from a script that has written before, and a session must end all the same).
 * left(key): its TTL in ms, for SET PX, which refuses the 0 of a last millisecond. range_of(name): a user's part of the index, as
 * ZRANGEBYLEX wants it; newest(): the last in it that lives, and its session_keys; the dead after it leave, a thousand at most.
 * enter(): into the index goes one whose life is so long; sweep(): dead members leave the index. */
#define PRELUDE \
	"local t = redis.call('TIME') " \
	"local now = tonumber(t[1]) * 1000 + math.floor(t[2] / 1000) " \
	"local function read(v) " \
	"  local head, order, ahead, rest, appid, openid, keys = string.match(v or '', " \
	"    '^((%d+)|%d*|(%d*)|(([^|]*)|([^|]*)|[^|]*|[^|]*|[^|]*|))(.*)$') " \
	"  if not head then return end " \
	"  return {head = head, order = order, ahead = tonumber(ahead) or 0, rest = rest, user = appid .. ':' .. openid, keys = keys} " \
	"end " \
	"local function mark(key) return string.sub(key, 1, -21) .. '!' .. string.sub(key, -20) end " \
	"local function alive(key) return read(redis.call('GET', key)) end " \
	"local function left(key) return math.max(1, redis.call('PTTL', key)) end " \
	"local function digits(n) return n > 0 and string.format('%.0f', n) or '' end " \
	"local function put(key, s, seen, life, ttl) " \
	"  redis.call('SET', key, s.order .. '|' .. digits(seen) .. '|' .. digits(s.ahead) .. '|' .. s.rest .. s.keys, 'PX', life) " \
	"  if life < ttl then redis.call('SET', mark(key), '', 'PX', ttl) end " \
	"end " \
	"local function bury(key, reason) " \
	"  if not alive(key) then return end " \
	"  local rest = left(key) " \
	"  redis.call('DEL', key, mark(key)) " \
	"  redis.call('SET', key, '!' .. reason, 'PX', rest) " \
	"end " \
	"local function range_of(name) return '[' .. name, '(' .. name .. ':' end " \
	"local function id_of(member) return string.sub(member, -20) end " \
	"local function newest(index, name, base) " \
	"  local from, to = range_of(name) " \
	"  for _ = 1, 1000 do " \
	"    local last = redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1)[1] " \
	"    if not last then return end " \
	"    local s = alive(base .. id_of(last)) " \
	"    if s then return last, s.keys end " \
	"    redis.call('ZREM', index, last) " \
	"  end " \
	"end " \
	"local function enter(index, member, life) " \
	"  redis.call('ZADD', index, 0, member) " \
	"  if redis.call('PTTL', index) < life then redis.call('PEXPIRE', index, life) end " \
	"end " \
	"local function sweep(index, base, member) " \
	"  for round = 1, 100 do " \
	"    local size = redis.call('ZCARD', index) " \
	"    local at = tonumber(string.sub(redis.sha1hex(now .. member .. round), 1, 8), 16) % size " \
	"    local members, keys = redis.call('ZRANGE', index, at, at + 2), {} " \
	"    for i, m in ipairs(members) do keys[i] = base .. id_of(m) end " \
	"    if redis.call('EXISTS', unpack(keys)) == #keys then return end " \
	"    for i, m in ipairs(members) do " \
	"      if redis.call('EXISTS', keys[i]) == 0 then redis.call('ZREM', index, m) end " \
	"    end " \
	"  end " \
	"end "

/* KEYS session index; ARGV ttl max_age rest id session-base max_per_user session_key what-it-begins-with-if-it-is-the-same name.
 * The life in ms, then the ids of those it replaced: the oldest, and no more of them than a thousand, or the answer might be longer than
 * we take (of the rest a memory hears by invalidation alone). */
static struct redis_script create_script = {.text = PRELUDE
	"local index, ttl, max_age, id, base = KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[5] "
	"local max, keys, same, name = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9] "
	"local life, order = math.min(ttl, max_age), now "
	"local out = {life} "
	"local last, before = newest(index, name, base) "
	"if last then "
	"  order = math.max(now, tonumber(string.sub(last, 17, 29)) + 1) "
	"  if string.sub(before, 1, #same) == same then keys = before else keys = keys .. string.sub(before, 1, 1 + (string.byte(before) or 0)) end "
	"end "
	"if max > 0 then "
	"  local live = {} "
	"  for _, m in ipairs(redis.call('ZRANGEBYLEX', index, range_of(name))) do "
	"    if alive(base .. id_of(m)) then live[#live + 1] = m else redis.call('ZREM', index, m) end "
	"  end "
	"  for i = 1, #live - max + 1 do "
	"    bury(base .. id_of(live[i]), 'replaced') "
	"    redis.call('ZREM', index, live[i]) "
	"    if #out <= 1000 then out[#out + 1] = id_of(live[i]) end "
	"  end "
	"end "
	"local s = {order = string.format('%013.0f', order), ahead = order - now, rest = ARGV[3], keys = keys} "
	"put(KEYS[1], s, 0, life, ttl) "
	"local member = name .. s.order .. id "
	"enter(index, member, life) "
	"sweep(index, base, member) "
	"return out"};

/* KEYS session index; ARGV ttl max_age id session-base name. What remains of the session in ms, or what now stands in its place: !reason
 * or nil. An index that was lost (evicted, deleted by hand) comes back with the sessions that are used. */
static struct redis_script renew_script = {.text = PRELUDE
	"local v = redis.call('GET', KEYS[1]) "
	"local s = read(v) "
	"if not s then return v or (redis.call('EXISTS', mark(KEYS[1])) == 1 and '!expired') end "
	"local index, ttl, member = KEYS[2], tonumber(ARGV[1]), ARGV[5] .. s.order .. ARGV[3] "
	"local created = s.order - s.ahead "
	"local life = math.min(ttl, created + tonumber(ARGV[2]) - now) "
	"if life <= 0 then "
	"  bury(KEYS[1], 'expired') "
	"  redis.call('ZREM', index, member) "
	"  return '!expired' "
	"end "
	"local last, keys = newest(index, ARGV[5], ARGV[4]) "
	"if last and last > member then s.keys = keys end "
	"put(KEYS[1], s, math.floor((now - created) / 1000), life, ttl) "
	"enter(index, member, life) "
	"sweep(index, ARGV[4], member) "
	"return life"};

/* KEYS session index; ARGV reason id session-base name. name: only if it is this user's; empty: whoever's. */
static struct redis_script end_script = {.text = PRELUDE
	"local index, base, s = KEYS[2], ARGV[3], read(redis.call('GET', KEYS[1])) "
	"if not s then return 0 end "
	"local name = string.sub(redis.sha1hex(s.user), 1, 16) "
	"if ARGV[4] ~= '' and ARGV[4] ~= name then return 0 end "
	"local member = name .. s.order .. ARGV[2] "
	"bury(KEYS[1], ARGV[1]) "
	"redis.call('ZREM', index, member) "
	"local last = newest(index, name, base) "
	"if last and last < member then "
	"  local from, to = range_of(name) "
	"  for _, m in ipairs(redis.call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1000)) do "
	"    local key = base .. id_of(m) "
	"    local heir = alive(key) "
	"    if heir and heir.keys ~= s.keys then redis.call('SET', key, heir.head .. s.keys, 'PX', left(key)) end "
	"  end "
	"end "
	"return 1"};

/* KEYS index; ARGV session-base name reason limit. The ids it ended; as many as the limit: there may be more. */
static struct redis_script end_user_script = {.text = PRELUDE
	"local from, to = range_of(ARGV[2]) "
	"local ids = {} "
	"for i, m in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], from, to, 'LIMIT', 0, ARGV[4])) do "
	"  ids[i] = id_of(m) "
	"  bury(ARGV[1] .. ids[i], ARGV[3]) "
	"  redis.call('ZREM', KEYS[1], m) "
	"end "
	"return ids"};

/* KEYS index; ARGV session-base name limit. id, value without session_keys, what remains in ms; and so on, the newest first. Forgets
 * those that are no more. */
static struct redis_script list_script = {.text = PRELUDE
	"local from, to = range_of(ARGV[2]) "
	"local out = {} "
	"for _, m in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[1], to, from, 'LIMIT', 0, ARGV[3])) do "
	"  local key = ARGV[1] .. id_of(m) "
	"  local s = alive(key) "
	"  if s then "
	"    out[#out + 1] = id_of(m) "
	"    out[#out + 1] = s.head "
	"    out[#out + 1] = redis.call('PTTL', key) "
	"  else "
	"    redis.call('ZREM', KEYS[1], m) "
	"  end "
	"end "
	"return out"};

/* KEYS index; ARGV session-base name. The user's session_keys, the newest first. */
static struct redis_script keys_script = {.text = PRELUDE
	"local _, keys = newest(KEYS[1], ARGV[2], ARGV[1]) "
	"local out = {} "
	"while keys and keys ~= '' do "
	"  local n = string.byte(keys) "
	"  out[#out + 1] = string.sub(keys, 2, 1 + n) "
	"  keys = string.sub(keys, 2 + n) "
	"end "
	"return out"};

#endif
