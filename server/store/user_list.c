#include "store/user_list.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/encode.h"

void user_sql_bytes(struct buf *b, const void *p, size_t n)
{
	char hex[3];

	buf_str(b, "X'");
	for (size_t i = 0; i < n; i++) {
		hex_encode(hex, (const char *)p + i, 1);
		buf_add(b, hex, 2);
	}
	buf_str(b, "'");
}

static void text(const struct user_sql *s, struct buf *b, const char *before, const char *value)
{
	buf_str(b, before);
	s->ops->quote(s->state, b, value);
}

/* Users with what stands beside them. */
static void from_users(const struct user_sql *s, struct buf *b)
{
	const char *t = s->ops->tables;

	buf_printf(b,
		"SELECT " USER_LIST_COLUMNS(u)
		" FROM %susers u LEFT JOIN %sphones p ON p.appid=u.appid AND "
			   "p.openid=u.openid"
			   " LEFT JOIN %sblocks b ON b.appid=u.appid AND b.openid=u.openid WHERE ",
		t, t, t);
}

static void from_blocks(const struct user_sql *s, struct buf *b)
{
	const char *t = s->ops->tables;

	buf_printf(b,
		"SELECT " USER_LIST_COLUMNS(b)
		" FROM %sblocks b LEFT JOIN %susers u ON u.appid=b.appid AND "
			   "u.openid=b.openid"
			   " LEFT JOIN %sphones p ON p.appid=b.appid AND p.openid=b.openid WHERE ",
		t, t, t);
}

/* One app's, past the one that the page before ended with. */
static void of_app(
	const struct user_sql *s, struct buf *b, const char *k, const struct user_query *q)
{
	buf_str(b, k);
	text(s, b, ".appid=", q->appid);
	buf_printf(b, " AND %s.openid>", k);
	text(s, b, "", q->after ? q->after : "");
}

/* Under every key, and as it is: for rows that are not sealed. */
static void tags(
	const struct user_sql *s, struct buf *b, struct arena *a, const struct user_query *q)
{
	for (size_t i = 0; i <= s->ring->seal->key_count; i++) {
		struct user_bytes tag = phone_tag(s->ring, a, i, q->appid, q->value);

		buf_str(b, i ? "," : " IN (");
		user_sql_bytes(b, tag.p, tag.len);
	}
	buf_str(b, ")");
}

/* Each way to find a number has an index of its own, so each is a statement of its own. */
static void of_phone(
	const struct user_sql *s, struct buf *b, struct arena *a, const struct user_query *q)
{
	from_users(s, b);
	of_app(s, b, "u", q);
	text(s, b, " AND u.phone=", q->value);
	buf_str(b, " UNION ");
	from_users(s, b);
	of_app(s, b, "u", q);
	buf_str(b, " AND p.tag");
	tags(s, b, a, q);
	buf_str(b, " UNION ");
	from_users(s, b);
	of_app(s, b, "u", q);
	buf_str(b, " AND p.pure_tag");
	tags(s, b, a, q);
}

static void blocks_of_now(struct buf *b)
{
	buf_printf(b, " AND (b.until_s=0 OR b.until_s>%" PRId64 ")", clock_wall_s());
}

/* Blocks of all apps, in the order of their keys. */
static void all_blocks(const struct user_sql *s, struct buf *b, const struct user_query *q)
{
	from_blocks(s, b);
	text(s, b, "b.appid>=", q->after_appid ? q->after_appid : "");
	text(s, b, " AND (b.appid>", q->after_appid ? q->after_appid : "");
	text(s, b, " OR b.openid>", q->after ? q->after : "");
	buf_str(b, ")");
	blocks_of_now(b);
	buf_printf(b, " ORDER BY 1, 2 LIMIT %d", q->limit);
}

void user_sql_list(
	const struct user_sql *s, struct buf *b, struct arena *a, const struct user_query *q)
{
	if (!q->appid) {
		all_blocks(s, b, q);
		return;
	}
	if (q->filter == USER_OF_PHONE) {
		of_phone(s, b, a, q);
	} else if (q->filter == USER_BLOCKED) {
		from_blocks(s, b);
		of_app(s, b, "b", q);
		blocks_of_now(b);
	} else {
		from_users(s, b);
		of_app(s, b, "u", q);
		if (q->filter == USER_OF_UNIONID)
			text(s, b, " AND u.unionid=", q->value);
	}
	buf_printf(b, " ORDER BY 1, 2 LIMIT %d", q->limit);
}

void user_sql_stale(const struct user_sql *s, struct buf *b, const struct phone_key *key, int limit)
{
	from_users(s, b);
	if (key) {
		buf_str(b, "p.key_id=");
		user_sql_bytes(b, key->id, sizeof(key->id));
	} else {
		buf_str(b, "u.phone IS NOT NULL");
	}
	buf_printf(b, " LIMIT %d", limit);
}

void user_sql_foreign(const char *tables, const struct phone_ring *ring, struct buf *b)
{
	buf_printf(b, "SELECT COUNT(*) FROM %sphones WHERE key_id IS NOT NULL", tables);
	for (size_t i = 0; i < ring->seal->key_count; i++) {
		buf_str(b, " AND key_id<>");
		user_sql_bytes(b, ring->keys[i].id, PHONE_KEY_LEN);
	}
}

void user_sql_drop_blocks(const struct user_sql *s, struct buf *b, int64_t now_s)
{
	buf_printf(b, "DELETE FROM %sblocks WHERE until_s>0 AND until_s<=%" PRId64, s->ops->tables,
		now_s);
}

void user_sql_drop_tombstones(const struct user_sql *s, struct buf *b, int64_t before_ms)
{
	buf_printf(b, "DELETE FROM %serased WHERE erased_ms<%" PRId64, s->ops->tables, before_ms);
}
