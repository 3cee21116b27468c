#include "io/redis.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "io/conn.h"
#include "io/node.h"

enum { KINDS = 8 /* of errors told apart when logging */ };

/* What it takes to ask once more. */
struct command {
	const struct redis_script *script;
	int    argc;
	size_t len;
	char   args[]; /* encoded */
};

struct refused {
	redis_cb cb;
	void    *ctx;
};

struct redis {
	struct loop *loop;
	struct redis_options o; /* its strings are ours */
	struct node *node;
	struct redis_place places[REDIS_PLACES];
	unsigned said;
	struct buf scratch;     /* a script's arguments, encoded */

	/* refused before they were sent; told next turn */
	struct refused *refused;
	size_t refused_told, refused_len, refused_cap;

	struct { char word[REPLY_WORD_MAX]; int64_t at_ms; } kinds[KINDS];
	int  nodes;             /* not gone yet */
	int  depth;             /* callbacks in progress: memory must outlive them */
	bool freed;
	struct metric_series *ok, *error, *timeout, *unavailable, *connected;
};

/* --- callbacks: the one way out, and who may free us meanwhile --- */

static void on_refuse(void *ctx);

static void destroy_if_done(struct redis *r)
{
	if (!r->freed || r->depth || r->nodes)
		return;
	loop_undefer(r->loop, on_refuse, r);
	free(r->refused);
	buf_free(&r->scratch);
	free((char *)r->o.host);
	free((char *)r->o.unix_path);
	free((char *)r->o.user);
	free((char *)r->o.key_prefix);
	mem_free_secret((char *)r->o.password);
	free(r);
}

static void enter(struct redis *r)
{
	r->depth++;
}

static void leave(struct redis *r)
{
	r->depth--;
	destroy_if_done(r);
}

static void tell_refused(struct redis *r)
{
	/* Who is refused again by its callback waits for another turn; redis_free in a callback tells the rest. */
	for (size_t n = r->refused_len; r->refused_told < n && r->refused_len;) {
		struct refused one = r->refused[r->refused_told++];

		one.cb(one.ctx, OC_STORE_UNAVAILABLE, NULL);
	}
	r->refused_len -= r->refused_told;
	if (r->refused_len)
		memmove(r->refused, r->refused + r->refused_told, r->refused_len * sizeof(*r->refused));
	r->refused_told = 0;
}

static void on_refuse(void *ctx)
{
	struct redis *r = ctx;

	enter(r);
	tell_refused(r);
	if (r->refused_len)
		loop_defer(r->loop, on_refuse, r);
	leave(r);
}

static void refuse(struct redis *r, redis_cb cb, void *ctx)
{
	metric_add(r->unavailable, 1);
	if (r->refused_len == r->refused_cap) {
		r->refused_cap = r->refused_cap ? 2 * r->refused_cap : 16;
		r->refused = mem_realloc(r->refused, r->refused_cap * sizeof(*r->refused));
	}
	if (r->refused_len == 0)
		loop_defer(r->loop, on_refuse, r);
	r->refused[r->refused_len++] = (struct refused){cb, ctx};
}

/* --- answers --- */

static void log_kind(struct redis *r, const char *command, const char *error)
{
	char word[REPLY_WORD_MAX];
	int64_t now = clock_ms();
	size_t slot = 0;

	reply_word(error, word); /* what follows it may quote our arguments */
	for (size_t i = 0; i < KINDS; i++) {
		if (strcmp(r->kinds[i].word, word) == 0) {
			slot = i;
			if (now - r->kinds[i].at_ms < 1000)
				return;
			break;
		}
		if (r->kinds[i].at_ms < r->kinds[slot].at_ms)
			slot = i;
	}
	memcpy(r->kinds[slot].word, word, sizeof(word));
	r->kinds[slot].at_ms = now;
	log_warn("redis refused a command", LOG_STR("command", command), LOG_STR("error", word));
}

static void command_free(struct command *c)
{
	if (c)
		mem_wipe(c->args, c->len);
	free(c);
}

static void on_answer(const struct asked *a, enum conn_fate fate, const struct redisReply *v);

/* Redis forgot the script. Nothing was done, so nothing is done twice; but what was sent meanwhile comes before it. */
static bool send_text(struct redis *r, const struct asked *a)
{
	const struct command *c = a->command;
	struct asked again = *a;

	again.command = NULL;
	if (!conn_send_encoded(node_conn(r->node), "EVAL", c->script->text, c->argc, c->args, c->len, &again))
		return false;
	conn_learns(node_conn(r->node), c->script->number, true);
	return true;
}

static void on_error(struct redis *r, const struct asked *a, const char *error)
{
	char word[REPLY_WORD_MAX];

	reply_word(error, word);
	if (a->command && !strcmp(word, "NOSCRIPT") && send_text(r, a))
		return;
	metric_add(r->error, 1);
	log_kind(r, a->name, error);
	a->cb(a->ctx, OC_STORE_UNAVAILABLE, NULL);
	if (r->freed)
		return;
	/* A master that became a replica: the address may lead to the new one by now. */
	if (!strcmp(word, "READONLY"))
		node_leave(r->node, LOG_WARN, "READONLY: this is a replica");
	else if (node_is_of_cluster(word))
		node_leave(r->node, LOG_ERROR, NODE_OF_CLUSTER);
}

static void on_answer(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct redis *r = a->owner;

	enter(r);
	if (fate != CONN_ANSWERED) {
		metric_add(fate == CONN_LATE ? r->timeout : r->unavailable, 1);
		a->cb(a->ctx, OC_STORE_UNAVAILABLE, NULL);
	} else if (reply_error(v)) {
		on_error(r, a, reply_error(v));
	} else {
		metric_add(r->ok, 1);
		a->cb(a->ctx, OC_OK, v);
	}
	command_free(a->command);
	leave(r);
}

/* --- asking --- */

static bool can_send(const struct redis *r)
{
	return !r->freed && node_is_ready(r->node);
}

void redis_command(struct redis *r, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	const struct asked a = {.fn = on_answer, .owner = r, .cb = cb, .ctx = ctx, .name = argv[0]};

	if (!can_send(r) || !conn_send(node_conn(r->node), argc, argv, argvlen, &a))
		refuse(r, cb, ctx);
}

static void script_init(struct redis_script *s)
{
	static uint8_t scripts; /* all the program's; a connection tells 63 apart */
	uint8_t hash[SHA1_LEN];

	crypt_sha1(hash, s->text, strlen(s->text));
	hex_encode(s->hash, hash, sizeof(hash));
	if (scripts < 63)
		s->number = ++scripts; /* number 0 is never known: its text travels each time */
}

static struct command *command_new(const struct redis_script *s, int argc, const struct buf *args)
{
	struct command *c = mem_alloc(sizeof(*c) + args->len);

	c->script = s;
	c->argc = argc;
	c->len = args->len;
	memcpy(c->args, args->data, args->len);
	return c;
}

static bool send_script(struct redis *r, struct redis_script *s, int argc, struct asked *a)
{
	struct conn *c = node_conn(r->node);
	bool known = conn_knows(c, s->number);

	a->command = known ? command_new(s, argc, &r->scratch) : NULL;
	if (!conn_send_encoded(c, known ? "EVALSHA" : "EVAL", known ? s->hash : s->text, argc, r->scratch.data, r->scratch.len, a)) {
		command_free(a->command);
		return false;
	}
	conn_learns(c, s->number, s->number > 0);
	return true;
}

void redis_eval(struct redis *r, struct redis_script *s, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	struct asked a = {.fn = on_answer, .owner = r, .cb = cb, .ctx = ctx, .name = "EVAL"};

	if (!s->hash[0])
		script_init(s);
	buf_clear(&r->scratch);
	conn_encode(&r->scratch, argc, argv, argvlen);
	if (!can_send(r) || !send_script(r, s, argc, &a))
		refuse(r, cb, ctx);
}

/* --- the object --- */

static void on_ready(void *ctx, struct node *n, bool ready)
{
	struct redis *r = ctx;

	(void)n;
	metric_set(r->connected, ready);
}

static void on_node_gone(void *ctx)
{
	struct redis *r = ctx;

	r->nodes--;
	destroy_if_done(r);
}

static struct node *open_node(struct redis *r)
{
	const struct redis_options *o = &r->o;

	r->nodes++;
	return node_new(r->loop, &(struct node_options){
		.conn = {.host = o->host, .port = o->port, .unix_path = o->unix_path, .user = o->user, .password = o->password, .db = o->db,
			.timeout_ms = o->timeout_ms, .max_pending = o->max_pending, .tls = o->tls},
		.key_prefix = o->key_prefix,
		.place = &r->places[0],
		.said = &r->said,
		.on_ready = on_ready,
		.on_gone = on_node_gone,
		.ctx = r,
	});
}

static void series_init(struct redis *r)
{
	r->ok = metric_series(METRIC_REDIS_COMMANDS, "ok", NULL, NULL);
	r->error = metric_series(METRIC_REDIS_COMMANDS, "error", NULL, NULL);
	r->timeout = metric_series(METRIC_REDIS_COMMANDS, "timeout", NULL, NULL);
	r->unavailable = metric_series(METRIC_REDIS_COMMANDS, "unavailable", NULL, NULL);
	r->connected = metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL);
	metric_set(r->connected, 0);
}

struct redis *redis_new(struct loop *l, const struct redis_options *o)
{
	struct redis *r = mem_alloc(sizeof(*r));

	r->loop = l;
	r->o = *o;
	r->o.host = mem_strdup(o->host);
	r->o.unix_path = mem_strdup(o->unix_path);
	r->o.user = mem_strdup(o->user ? o->user : "");
	r->o.password = mem_strdup(o->password ? o->password : "");
	r->o.key_prefix = mem_strdup(o->key_prefix ? o->key_prefix : "");
	r->o.timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : 500;
	r->o.max_pending = o->max_pending > 0 ? o->max_pending : 1024;
	for (size_t i = 0; i < NELEM(r->places); i++)
		r->places[i].proven_ms = NODE_NEVER;
	series_init(r);
	r->node = open_node(r);
	return r;
}

void redis_free(struct redis *r)
{
	if (!r || r->freed)
		return;
	r->freed = true;
	enter(r);
	node_free(r->node);
	metric_set(r->connected, 0);
	while (r->refused_len)
		tell_refused(r);
	leave(r);
}

bool redis_is_ready(const struct redis *r)
{
	return node_is_ready(r->node);
}

int redis_major(const struct redis *r)
{
	return node_major(r->node);
}

const char *redis_trouble(const struct redis *r)
{
	return redis_is_ready(r) ? "" : node_trouble(r->node);
}

const struct redis_place *redis_listen(struct redis *r, const char *prefix, redis_changed_fn changed, void *ctx)
{
	node_listen(r->node, prefix, changed, ctx);
	return r->places;
}

unsigned redis_place_of(const struct redis *r, const char *key)
{
	(void)r;
	(void)key;
	return 0;
}
