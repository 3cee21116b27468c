/* A command of a single server goes straight to its connection. Where there may be another master a
 * moment later, a command is kept encoded until it is answered: it may have to wait, and to be sent
 * again to whoever is the master then. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "io/redis_private.h"
#include "io/request.h"

enum { SWEEP_MS = 5, WAIT_MIN_MS = 5, WAIT_MAX_MS = 50, HOPS_MAX = 5 };

struct command {
	TAILQ_ENTRY(command) link;  /* while it waits, or was sent again */
	redis_cb cb;
	void    *ctx;
	const struct redis_script *script; /* NULL: the command's own words are in args */
	const char *name;
	int64_t  deadline_ms, again_ms;
	int      wait_ms;           /* how long it waited last */
	unsigned slot, place;       /* in a cluster; and to whom it was sent last */
	int      hops;              /* redirections */
	bool     is_linked;         /* in the list of those who wait, or were sent late */
	bool     is_sent;           /* somebody else will come back with it */
	bool     is_told;
	bool     is_kept;           /* enough replicas must have what it did */
	bool     is_text;           /* its script travelled as text last */
	int      argc;
	size_t   len;
	char     args[];            /* encoded */
};

/* --- commands that are kept --- */

static struct command *command_new(struct redis *r, const struct redis_script *s, const char *name,
	int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	const char *key = argc > 1 ? argv[1] : "";
	size_t key_len = argc > 1 && argvlen ? argvlen[1] : strlen(key);

	struct command *c;

	buf_clear(&r->scratch);
	request_words(&r->scratch, argc, argv, argvlen);
	c = mem_alloc(sizeof(*c) + r->scratch.len);
	c->cb = cb;
	c->ctx = ctx;
	c->script = s;
	c->name = name;
	c->deadline_ms = clock_ms() + r->o.timeout_ms;
	c->argc = argc;
	c->slot = r->cluster ? slot_of(key, key_len) : 0;
	c->len = r->scratch.len;
	memcpy(c->args, r->scratch.data, c->len);
	return c;
}

static void command_free(struct command *c)
{
	if (c)
		mem_wipe(c->args, c->len);
	free(c);
}

static void unlink_command(struct redis *r, struct command *c)
{
	if (!c->is_linked)
		return;
	TAILQ_REMOVE(&r->waiting, c, link);
	c->is_linked = false;
	metric_set(r->parked, (int64_t)--r->waiting_count);
}

static void link_command(struct redis *r, struct command *c)
{
	TAILQ_INSERT_TAIL(&r->waiting, c, link);
	c->is_linked = true;
	metric_set(r->parked, (int64_t)++r->waiting_count);
	if (!r->sweep_set)
		timer_start(r->sweep, SWEEP_MS);
	r->sweep_set = true;
}

/* The end of a command, but for one that is still in a connection's queue: that answer finds nobody
 * to tell. */
static void finish(struct command *c, enum outcome oc, const struct redisReply *v)
{
	redis_cb cb = c->is_told ? NULL : c->cb;
	void *ctx = c->ctx;

	c->is_told = true;
	if (!c->is_sent)
		command_free(c);
	if (cb)
		cb(ctx, oc, v);
}

static void on_answer(const struct asked *a, enum conn_fate fate, const struct redisReply *v);

static bool send_to(struct redis *r, struct command *c, struct conn *to)
{
	const struct asked a = {.fn = on_answer,
		.owner = r,
		.cb = c->cb,
		.ctx = c->ctx,
		.command = c,
		.name = c->name};
	const struct redis_script *s = c->script;
	bool known = s && conn_knows(to, s->number);

	c->is_sent = conn_send_encoded(to, s ? known ? "EVALSHA" : "EVAL" : NULL,
		known ? s->hash
		: s   ? s->text
		      : NULL,
		c->argc, c->args, c->len, &a);
	c->is_text = s && !known;
	if (c->is_sent && s && s->number > 0)
		conn_learns(to, s->number, true);
	return c->is_sent;
}

static unsigned owner_of(const struct redis *r, const struct command *c)
{
	return r->cluster ? cluster_owner(r->cluster, c->slot) : 0;
}

/* Hands it to whoever is the master; false: nobody is, just now. */
static bool dispatch(struct redis *r, struct command *c)
{
	unsigned place = owner_of(r, c);
	struct conn *to = redis_conn_at(r, place);
	struct kept *kept = to && c->is_kept ? node_kept(r->nodes[place]) : NULL;

	c->place = place;
	if (to && !c->is_kept)
		return send_to(r, c, to);
	c->is_sent = kept && kept_take(kept, c);
	if (c->is_sent && !c->is_linked)
		link_command(r, c); /* the replicas may take their time */
	return c->is_sent;
}

/* Whoever is the master may be another soon, or be ready. A command is sent again only when it is
 * certain that nothing was done. */
static void wait_a_while(struct redis *r, struct command *c)
{
	int most = c->wait_ms ? 2 * c->wait_ms : WAIT_MIN_MS;

	if (r->freed || clock_ms() >= c->deadline_ms ||
		r->waiting_count >= (size_t)r->o.max_pending) {
		metric_add(r->unavailable, 1);
		finish(c, OC_STORE_UNAVAILABLE, NULL);
		return;
	}
	c->wait_ms = most < WAIT_MAX_MS ? most : WAIT_MAX_MS;
	c->again_ms = clock_ms() + c->wait_ms / 2 + rand_r(&r->seed) % (c->wait_ms / 2 + 1);
	link_command(r, c);
}

/* One that waited. */
static void try_again(struct redis *r, struct command *c)
{
	int64_t now = clock_ms();

	if (now >= c->deadline_ms) {
		metric_add(r->timeout, 1);
		finish(c, OC_STORE_UNAVAILABLE, NULL);
		return;
	}
	if (!c->is_sent && now >= c->again_ms)
		dispatch(r, c);
	if (!c->is_linked)
		link_command(r, c); /* it is told in time though it was sent late */
}

static void on_sweep(void *ctx)
{
	struct redis *r = ctx;
	struct command *c;

	redis_enter(r);
	r->sweep_set = false;
	for (size_t n = r->waiting_count; n > 0 && (c = TAILQ_FIRST(&r->waiting)); n--) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): a command leaves the list before it is freed */
		unlink_command(r, c);
		try_again(r, c);
	}
	redis_leave(r);
}

/* --- answers --- */

static void log_kind(struct redis *r, const char *command, const char *word)
{
	int64_t now = clock_ms();
	size_t slot = 0;

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
	memcpy(r->kinds[slot].word, word, REPLY_WORD_MAX);
	r->kinds[slot].at_ms = now;
	/* its sentence may quote arguments */
	log_warn("redis refused a command", LOG_STR("command", command), LOG_STR("error", word));
}

static void tell(const struct asked *a, enum outcome oc, const struct redisReply *v)
{
	if (a->command)
		finish(a->command, oc, v);
	else
		a->cb(a->ctx, oc, v);
}

static bool is_one_of(const char *word, const char *const *words)
{
	while (*words && strcmp(*words, word) != 0)
		words++;
	return *words;
}

/* Redis forgot the script. Nothing was done, so nothing is done twice; but what was sent meanwhile
 * comes before it. */
static bool send_text(struct redis *r, struct command *c)
{
	struct conn *to = redis_conn_at(r, c->place);

	if (!to || !c->script || c->is_kept || c->is_text)
		return false;
	conn_learns(to, c->script->number, false);
	return send_to(r, c, to);
}

/* An address that leads to another server by now, or a master that is none any more. */
static void leave_if_wrong(struct redis *r, const char *word)
{
	if (r->freed || r->cluster || !r->nodes[0])
		return;
	if (!strcmp(word, "READONLY"))
		node_leave(r->nodes[0], LOG_WARN, "READONLY: this is a replica");
	else if (node_is_of_cluster(word))
		node_leave(r->nodes[0], LOG_ERROR, NODE_OF_CLUSTER);
}

static void ignore(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	(void)a, (void)fate, (void)v; /* what follows it will tell */
}

/* Its second word, encoded: the key of a command without a script. */
static const char *key_of(const struct command *c, size_t *len)
{
	const char *p = c->args;
	size_t n = strtoul(p + 1, NULL, 10);

	p = strchr(p, '\n') + 1 + n + 2;
	*len = strtoul(p + 1, NULL, 10);
	return strchr(p, '\n') + 1;
}

static bool is_read(const struct command *c)
{
	static const char *const reads[] = {"GET", "PTTL", "EXISTS", NULL};

	return !c->script && is_one_of(c->name, reads);
}

/* The slot is on its way to another node, and this key is there already, or nowhere. What is read
 * there is told of by that node, whose word on it nobody has asked for: it is not to be remembered.
 */
static bool follow_ask(struct redis *r, struct command *c, const struct slot_redirect *to)
{
	const struct asked a = {.fn = ignore};
	unsigned place = is_read(c) ? cluster_place(r->cluster, to->host, to->port) : NOBODY;
	struct conn *conn = redis_conn_at(r, place);
	const char *key;
	size_t len;

	if (!conn || !CONN_SEND(conn, &a, "ASKING"))
		return false;
	c->place = place;
	key = key_of(c, &len);
	if (r->on_changed)
		r->on_changed(r->changed_ctx, key, len);
	return send_to(r, c, conn);
}

/* true: it is on its way again. */
static bool redirected(struct redis *r, struct command *c, const char *error)
{
	struct slot_redirect to;
	unsigned from = c->place;

	if (!slot_redirect_read(&to, error, cluster_host(r->cluster, from))) {
		cluster_want_map(r->cluster, from);
		return false;
	}
	metric_add(to.is_ask ? r->ask : r->moved, 1);
	if (to.is_ask)
		return ++c->hops <= HOPS_MAX && follow_ask(r, c, &to);
	cluster_moved(r->cluster, from, &to);
	return ++c->hops <= HOPS_MAX && dispatch(r, c);
}

/* Nothing was done, and a moment later it may be. */
static bool is_for_later(const struct redis *r, const struct command *c, const char *word)
{
	static const char *const later[] = {"READONLY", "LOADING", "MASTERDOWN", "NOSCRIPT", NULL};
	static const char *const in_cluster[] = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", NULL};

	if (r->o.kind == REDIS_ONE && !c->is_kept)
		return false;
	return is_one_of(word, later) ||
	       (r->cluster && c->hops <= HOPS_MAX && is_one_of(word, in_cluster));
}

static void on_error(struct redis *r, const struct asked *a, const char *error)
{
	static const char *const redirections[] = {"MOVED", "ASK", NULL}, *const wrong_map[] = {
										  "CLUSTERDOWN",
										  "READONLY", NULL};
	struct command *c = a->command;
	char word[REPLY_WORD_MAX];

	reply_word(error, word);
	if (c && !c->is_told && !strcmp(word, "NOSCRIPT") && send_text(r, c))
		return;
	if (c && !c->is_told && !r->freed && r->cluster && is_one_of(word, redirections) &&
		redirected(r, c, error))
		return;
	if (r->cluster && is_one_of(word, wrong_map))
		cluster_want_map(r->cluster, CLUSTER_NOBODY);
	if (c && !c->is_told && is_for_later(r, c, word)) {
		wait_a_while(r, c);
	} else {
		metric_add(r->error, 1);
		log_kind(r, a->name, word);
		tell(a, OC_STORE_UNAVAILABLE, NULL);
	}
	leave_if_wrong(r, word);
}

static void on_answer(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct redis *r = a->owner;
	struct command *c = a->command;

	redis_enter(r);
	if (c) {
		c->is_sent = false;
		unlink_command(r, c);
	}
	if (fate != CONN_ANSWERED || (!reply_error(v) && !redis_is_believed(r))) {
		metric_add(fate == CONN_LATE ? r->timeout : r->unavailable, 1);
		tell(a, OC_STORE_UNAVAILABLE, NULL);
	} else if (reply_error(v)) {
		on_error(r, a, reply_error(v));
	} else if (c && c->is_kept && !c->is_told && !r->freed && r->nodes[c->place]) {
		c->is_sent = true; /* until the replicas have it, or not */
		link_command(r, c);
		kept_answered(node_kept(r->nodes[c->place]), c, v);
	} else {
		metric_add(r->ok, 1);
		tell(a, OC_OK, v);
	}
	redis_leave(r);
}

/* --- those that replicas must have --- */

static void forget_text(struct redis *r, struct command *c, struct conn *to)
{
	(void)r;
	if (c->wait_ms && c->script) /* it came back: Redis may have forgotten the script */
		conn_learns(to, c->script->number, false);
}

void command_send_kept(void *ctx, struct command *c, struct conn *to)
{
	struct redis *r = node_ctx(ctx);

	c->is_sent = false;
	if (c->is_told) {
		command_free(c);
		return;
	}
	forget_text(r, c, to);
	if (send_to(r, c, to))
		return;
	unlink_command(r, c);
	wait_a_while(r, c);
}

void command_again_kept(void *ctx, struct command *c)
{
	struct redis *r = node_ctx(ctx);

	redis_enter(r);
	c->is_sent = false;
	unlink_command(r, c);
	if (c->is_told)
		command_free(c);
	else
		wait_a_while(r, c);
	redis_leave(r);
}

void command_on_kept(void *ctx, struct command *c, bool confirmed, const struct redisReply *v)
{
	struct redis *r = node_ctx(ctx);
	bool good = confirmed && redis_is_believed(r) && !r->freed;

	redis_enter(r);
	c->is_sent = false;
	unlink_command(r, c);
	metric_add(good ? r->ok : r->unavailable, 1);
	metric_add(r->unconfirmed, !good);
	finish(c, good ? OC_OK : OC_STORE_UNAVAILABLE, good ? v : NULL);
	redis_leave(r);
}

/* --- asking --- */

/* Never calls back before it returns. */
static void start(struct redis *r, struct command *c)
{
	if (dispatch(r, c))
		return;
	if ((r->o.kind != REDIS_ONE || (c->is_kept && redis_conn_at(r, 0))) && !r->freed &&
		r->waiting_count < (size_t)r->o.max_pending) {
		wait_a_while(r, c);
		return;
	}
	redis_refuse(r, c->cb, c->ctx);
	command_free(c);
}

void redis_command(struct redis *r, int argc, const char *const *argv, const size_t *argvlen,
	redis_cb cb, void *ctx)
{
	const struct asked a = {.fn = on_answer, .owner = r, .cb = cb, .ctx = ctx, .name = argv[0]};
	struct conn *to;

	if (r->o.kind == REDIS_ONE) {
		to = redis_conn_at(r, 0);
		if (!to || !conn_send(to, argc, argv, argvlen, &a))
			redis_refuse(r, cb, ctx);
		return;
	}
	start(r, command_new(r, NULL, argv[0], argc, argv, argvlen, cb, ctx));
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

static struct command *script_command(struct redis *r, struct redis_script *s, int argc,
	const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	if (!s->hash[0])
		script_init(s);
	return command_new(r, s, "EVAL", argc, argv, argvlen, cb, ctx);
}

void redis_eval(struct redis *r, struct redis_script *s, int argc, const char *const *argv,
	const size_t *argvlen, redis_cb cb, void *ctx)
{
	start(r, script_command(r, s, argc, argv, argvlen, cb, ctx));
}

void redis_eval_kept(struct redis *r, struct redis_script *s, int argc, const char *const *argv,
	const size_t *argvlen, redis_cb cb, void *ctx)
{
	struct command *c = script_command(r, s, argc, argv, argvlen, cb, ctx);

	c->is_kept = r->o.replicas > 0;
	start(r, c);
}

void redis_set_replicas(struct redis *r, int replicas)
{
	r->o.replicas = replicas;
}

/* --- all of them --- */

void commands_init(struct redis *r)
{
	r->seed = (unsigned)clock_us();
	TAILQ_INIT(&r->waiting);
	r->sweep = timer_new(r->loop, on_sweep, r);
}

void commands_tell_all(struct redis *r)
{
	struct command *c;

	timer_stop(r->sweep);
	while ((c = TAILQ_FIRST(&r->waiting))) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): a command leaves the list before it is freed */
		unlink_command(r, c);
		metric_add(r->unavailable, 1);
		finish(c, OC_STORE_UNAVAILABLE, NULL);
	}
}

void commands_fini(struct redis *r)
{
	timer_free(r->sweep);
	buf_free(&r->scratch);
}
