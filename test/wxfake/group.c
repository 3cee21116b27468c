/* The Redis servers that are watched, as one group: who is master, and its death (--kill-redis).
 *
 * Each server is asked for its ROLE a few times a second; a change is an event. SHUTDOWN NOSAVE NOW
 * is as good as a kill: the server takes no leave of its replicas or of anybody else. Of several
 * masters, a cluster's, the one dies that wxlogind used last: it has what the page has just shown.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "fake.h"
#include "io/conn.h"

/* A server is away when it was so twice: sentinels cut a replica's connections when its master
 * changes. */
enum { ASK_MS = 200, AWAY_TURNS = 2, TIMEOUT_MS = 1000, PENDING_MAX = 16 };
enum role { AWAY, REPLICA, MASTER };

static const char *const role_names[] = {
	[AWAY] = "away", [REPLICA] = "replica", [MASTER] = "master"};

struct server {
	struct server *prev, *next;
	struct fake *f;
	struct conn *conn;
	enum role role;
	int turns_down;
	bool asked;
	uint64_t used; /* which of all commands was its last */
};

static void list(const struct fake *f, struct buf *b)
{
	const struct server *s;

	buf_str(b, "[");
	DL_FOREACH(f->servers, s) {
		const char *name = conn_address(s->conn);

		buf_str(b, s == f->servers ? "{\"server\":" : ",{\"server\":");
		buf_json_str(b, name, strlen(name));
		buf_printf(b, ",\"role\":\"%s\"}", role_names[s->role]);
	}
	buf_str(b, "]");
}

static void set_role(struct server *s, enum role role)
{
	struct buf b = {0};

	if (s->role == role)
		return;
	s->role = role;
	buf_str(&b, "event: servers\ndata: ");
	events_at(&b, clock_wall_us());
	buf_str(&b, ",\"servers\":");
	list(s->f, &b);
	buf_str(&b, "}\n\n");
	events_tell(s->f, b.data, b.len);
	buf_free(&b);
}

static void on_role(const struct asked *a, enum conn_fate fate, const struct redisReply *reply)
{
	struct server *s = a->owner;
	const char *word = redis_reply_str(redis_reply_at(reply, 0), NULL);

	s->asked = false;
	if (fate == CONN_ANSWERED)
		set_role(s, !word ? AWAY : strcmp(word, "master") == 0 ? MASTER : REPLICA);
}

static void ask_role(struct server *s)
{
	struct asked a = {.fn = on_role, .owner = s, .name = "ROLE"};

	if (!s->asked)
		s->asked = CONN_SEND(s->conn, &a, "ROLE");
}

static void on_turn(void *ctx)
{
	struct fake *f = ctx;
	struct server *s;

	DL_FOREACH(f->servers, s) {
		if (conn_is_up(s->conn))
			ask_role(s);
		else if (++s->turns_down == AWAY_TURNS)
			set_role(s, AWAY);
	}
	timer_start(f->roles, ASK_MS);
}

static void on_state(void *ctx, bool up)
{
	struct server *s = ctx;

	s->turns_down = 0;
	if (up)
		ask_role(s);
}

struct server *group_add(struct fake *f, const struct conn_options *where)
{
	struct conn_options o = *where;
	struct server *s = mem_alloc(sizeof(*s));

	s->f = f;
	o.timeout_ms = TIMEOUT_MS;
	o.max_pending = PENDING_MAX;
	o.purpose = "wxfake"; /* monitor.c tells by it what is not wxlogind's */
	o.on_state = on_state;
	o.on_gone = free;
	o.ctx = s;
	s->conn = conn_new(f->loop, &o);
	DL_APPEND(f->servers, s);
	if (!f->roles) {
		f->roles = timer_new(f->loop, on_turn, f);
		timer_start(f->roles, ASK_MS);
	}
	return s;
}

void group_used(struct server *s)
{
	s->used = ++s->f->used;
}

void group_free(struct fake *f)
{
	struct server *s, *next;

	timer_free(f->roles);
	f->roles = NULL;
	DL_FOREACH_SAFE(f->servers, s, next) {
		DL_DELETE(f->servers, s);
		conn_free(s->conn);
	}
}

/* ---- what the page asks ---- */

static bool may_kill(struct fake *f, struct req *r)
{
	if (f->kill_redis && f->servers)
		return true;
	req_reply_error(r, &(struct req_error){.oc = OC_NOT_FOUND,
				   .message = "wxfake was started without --kill-redis."});
	return false;
}

void group_tell(struct fake *f, struct req *r, const cJSON *o)
{
	struct buf b = {0};

	(void)o;
	if (!may_kill(f, r))
		return;
	list(f, &b);
	req_reply_json(r, 200, b.data);
	buf_free(&b);
}

static void alive(struct req *r, const char *why)
{
	req_reply_error(r, &(struct req_error){.oc = OC_STORE_UNAVAILABLE, .message = why});
}

static void on_death(const struct asked *a, enum conn_fate fate, const struct redisReply *reply)
{
	struct server *s = a->owner;
	struct req *r = a->ctx;

	(void)reply;
	if (fate == CONN_LOST)
		req_reply_json(r, 200,
			arena_printf(req_arena(r), "{\"server\":\"%s\"}", conn_address(s->conn)));
	else
		alive(r, "The server does not take SHUTDOWN NOSAVE NOW: is it older than Redis 7?");
	req_release(r);
}

static struct server *victim(const struct fake *f)
{
	struct server *s, *found = NULL;

	DL_FOREACH(f->servers, s)
		if (s->role == MASTER && (!found || s->used > found->used))
			found = s;
	return found;
}

void group_kill(struct fake *f, struct req *r, const cJSON *o)
{
	struct server *s = victim(f);
	struct asked a = {.fn = on_death, .owner = s, .ctx = r, .name = "SHUTDOWN"};

	(void)o;
	if (!may_kill(f, r))
		return;
	req_hold(r);
	if (s && CONN_SEND(s->conn, &a, "SHUTDOWN", "NOSAVE", "NOW")) {
		log_info("the Redis master is ended", LOG_STR("address", conn_address(s->conn)));
		return;
	}
	alive(r, "No server says that it is the master: wait for the election.");
	req_release(r);
}
