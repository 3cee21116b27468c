/* A command of a single server goes straight to its connection. Where there may be another master a moment later, a command is kept
 * encoded until it is answered: it may have to wait, and to be sent again to whoever is the master then. */
#include "io/redis.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypt.h"
#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "io/cluster.h"
#include "io/conn.h"
#include "io/node.h"
#include "io/sentinel.h"

enum { KINDS = 8 /* of errors told apart when logging */, SWEEP_MS = 5, WAIT_MIN_MS = 5, WAIT_MAX_MS = 50, CLOCK_MS = 100, HOPS_MAX = 5 };
enum { NOBODY = REDIS_PLACES - 1 /* the place of nobody: nothing is ever proven of it */ };

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
	int      argc;
	size_t   len;
	char     args[];            /* encoded */
};
TAILQ_HEAD(commands, command);

struct refused {
	redis_cb cb;
	void    *ctx;
};

struct redis {
	struct loop *loop;
	struct redis_options o; /* its strings are ours */
	struct sentinels *sentinels;
	struct cluster *cluster;
	struct node *nodes[REDIS_PLACES]; /* but for a cluster only the first; NULL while no master is known */
	int64_t majority_ms;    /* when the majority last named it */
	int64_t good_ms;        /* when all was well */
	struct redis_place places[REDIS_PLACES];
	unsigned said;
	struct buf scratch;     /* a command's words, encoded */

	/* waiting, or sent again */
	struct commands waiting;
	size_t waiting_count;
	struct timer *sweep, *clock;
	bool sweep_set;
	unsigned seed;

	/* refused before they were sent; told next turn */
	struct refused *refused;
	size_t refused_told, refused_len, refused_cap;

	const char *prefix;     /* of the keys that somebody listens for */
	redis_changed_fn on_changed;
	void *changed_ctx;

	struct { char word[REPLY_WORD_MAX]; int64_t at_ms; } kinds[KINDS];
	int  parts;             /* nodes, and the sentinels, that are not gone yet */
	int  depth;             /* callbacks in progress: memory must outlive them */
	bool freed;
	struct metric_series *ok, *error, *timeout, *unavailable, *connected, *parked, *unconfirmed, *moved, *ask, *nodes_ready, *nodes_away;
};

/* --- callbacks: the one way out, and who may free us meanwhile --- */

static void on_refuse(void *ctx);

static void destroy_if_done(struct redis *r)
{
	if (!r->freed || r->depth || r->parts)
		return;
	loop_undefer(r->loop, on_refuse, r);
	timer_free(r->sweep);
	timer_free(r->clock);
	free(r->refused);
	buf_free(&r->scratch);
	free((char *)r->o.unix_path);
	free((char *)r->o.user);
	free((char *)r->o.key_prefix);
	free((char *)r->prefix);
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

/* --- commands that are kept --- */

static struct command *command_new(struct redis *r, const struct redis_script *s, const char *name, int argc, const char *const *argv,
	const size_t *argvlen, redis_cb cb, void *ctx)
{
	const char *key = argc > 1 ? argv[1] : "";
	size_t key_len = argc > 1 && argvlen ? argvlen[1] : strlen(key);

	struct command *c;

	buf_clear(&r->scratch);
	conn_encode(&r->scratch, argc, argv, argvlen);
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

/* The end of a command, but for one that is still in a connection's queue: that answer finds nobody to tell. */
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
	const struct asked a = {.fn = on_answer, .owner = r, .cb = c->cb, .ctx = c->ctx, .command = c, .name = c->name};
	const struct redis_script *s = c->script;
	bool known = s && conn_knows(to, s->number);

	c->is_sent = conn_send_encoded(to, s ? known ? "EVALSHA" : "EVAL" : NULL, known ? s->hash : s ? s->text : NULL, c->argc, c->args,
		c->len, &a);
	if (c->is_sent && s && s->number > 0)
		conn_learns(to, s->number, true);
	return c->is_sent;
}

/* The connection for commands to whoever is there, once it is ready. */
static struct conn *conn_at(const struct redis *r, unsigned place)
{
	struct node *n = place < NOBODY ? r->nodes[place] : NULL;

	return n && !r->freed && node_is_ready(n) ? node_conn(n) : NULL;
}

static unsigned owner_of(const struct redis *r, const struct command *c)
{
	return r->cluster ? cluster_owner(r->cluster, c->slot) : 0;
}

/* Hands it to whoever is the master; false: nobody is, just now. */
static bool dispatch(struct redis *r, struct command *c)
{
	unsigned place = owner_of(r, c);
	struct conn *to = conn_at(r, place);
	struct kept *kept = to && c->is_kept ? node_kept(r->nodes[place]) : NULL;

	c->place = place;
	if (to && !c->is_kept)
		return send_to(r, c, to);
	c->is_sent = kept && kept_take(kept, c);
	if (c->is_sent && !c->is_linked)
		link_command(r, c); /* the replicas may take their time */
	return c->is_sent;
}

/* Whoever is the master may be another soon, or be ready. A command is sent again only when it is certain that nothing was done. */
static void wait_a_while(struct redis *r, struct command *c)
{
	int most = c->wait_ms ? 2 * c->wait_ms : WAIT_MIN_MS;

	if (r->freed || clock_ms() >= c->deadline_ms || r->waiting_count >= (size_t)r->o.max_pending) {
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

	enter(r);
	r->sweep_set = false;
	for (size_t n = r->waiting_count; n > 0 && (c = TAILQ_FIRST(&r->waiting)); n--) {
		unlink_command(r, c);
		try_again(r, c);
	}
	leave(r);
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
	log_warn("redis refused a command", LOG_STR("command", command), LOG_STR("error", word)); /* its sentence may quote arguments */
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

/* Redis forgot the script. Nothing was done, so nothing is done twice; but what was sent meanwhile comes before it. */
static bool send_text(struct redis *r, struct command *c)
{
	struct conn *to = conn_at(r, c->place);

	if (!to || !c->script || c->is_kept)
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

/* The slot is on its way to another node, and this key is there already, or nowhere. What is read there is told of by that node, whose
 * word on it nobody has asked for: it is not to be remembered. */
static bool follow_ask(struct redis *r, struct command *c, const struct slot_redirect *to)
{
	const struct asked a = {.fn = ignore};
	unsigned place = is_read(c) ? cluster_place(r->cluster, to->host, to->port) : NOBODY;
	struct conn *conn = conn_at(r, place);
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
	return is_one_of(word, later) || (r->cluster && c->hops <= HOPS_MAX && is_one_of(word, in_cluster));
}

static void on_error(struct redis *r, const struct asked *a, const char *error)
{
	static const char *const redirections[] = {"MOVED", "ASK", NULL}, *const wrong_map[] = {"CLUSTERDOWN", "READONLY", NULL};
	struct command *c = a->command;
	char word[REPLY_WORD_MAX];

	reply_word(error, word);
	if (c && !c->is_told && !strcmp(word, "NOSCRIPT") && send_text(r, c))
		return;
	if (c && !c->is_told && !r->freed && r->cluster && is_one_of(word, redirections) && redirected(r, c, error))
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

/* An old master that was cut off answers as if nothing were. */
static bool is_believed(const struct redis *r)
{
	return r->o.kind == REDIS_ONE || r->o.proof_master || clock_ms() - r->majority_ms < r->o.timeout_ms;
}

static void on_answer(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct redis *r = a->owner;
	struct command *c = a->command;

	enter(r);
	if (c) {
		c->is_sent = false;
		unlink_command(r, c);
	}
	if (fate != CONN_ANSWERED || (!reply_error(v) && !is_believed(r))) {
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
	leave(r);
}

/* --- those that replicas must have --- */

static void forget_text(struct redis *r, struct command *c, struct conn *to)
{
	(void)r;
	if (c->wait_ms && c->script) /* it came back: Redis may have forgotten the script */
		conn_learns(to, c->script->number, false);
}

static void send_kept(void *ctx, struct command *c, struct conn *to)
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

static void again_kept(void *ctx, struct command *c)
{
	struct redis *r = node_ctx(ctx);

	enter(r);
	c->is_sent = false;
	unlink_command(r, c);
	if (c->is_told)
		command_free(c);
	else
		wait_a_while(r, c);
	leave(r);
}

static void on_kept(void *ctx, struct command *c, bool confirmed, const struct redisReply *v)
{
	struct redis *r = node_ctx(ctx);
	bool good = confirmed && is_believed(r) && !r->freed;

	enter(r);
	c->is_sent = false;
	unlink_command(r, c);
	metric_add(good ? r->ok : r->unavailable, 1);
	metric_add(r->unconfirmed, !good);
	finish(c, good ? OC_OK : OC_STORE_UNAVAILABLE, good ? v : NULL);
	leave(r);
}

/* --- asking --- */

/* Never calls back before it returns. */
static void start(struct redis *r, struct command *c)
{
	if (dispatch(r, c))
		return;
	if ((r->o.kind != REDIS_ONE || (c->is_kept && conn_at(r, 0))) && !r->freed && r->waiting_count < (size_t)r->o.max_pending) {
		wait_a_while(r, c);
		return;
	}
	refuse(r, c->cb, c->ctx);
	command_free(c);
}

void redis_command(struct redis *r, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	const struct asked a = {.fn = on_answer, .owner = r, .cb = cb, .ctx = ctx, .name = argv[0]};
	struct conn *to;

	if (r->o.kind == REDIS_ONE) {
		to = conn_at(r, 0);
		if (!to || !conn_send(to, argc, argv, argvlen, &a))
			refuse(r, cb, ctx);
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

static struct command *script_command(struct redis *r, struct redis_script *s, int argc, const char *const *argv,
	const size_t *argvlen, redis_cb cb, void *ctx)
{
	if (!s->hash[0])
		script_init(s);
	return command_new(r, s, "EVAL", argc, argv, argvlen, cb, ctx);
}

void redis_eval(struct redis *r, struct redis_script *s, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb, void *ctx)
{
	start(r, script_command(r, s, argc, argv, argvlen, cb, ctx));
}

void redis_eval_kept(struct redis *r, struct redis_script *s, int argc, const char *const *argv, const size_t *argvlen, redis_cb cb,
	void *ctx)
{
	struct command *c = script_command(r, s, argc, argv, argvlen, cb, ctx);

	c->is_kept = r->o.replicas > 0;
	start(r, c);
}

void redis_set_replicas(struct redis *r, int replicas)
{
	r->o.replicas = replicas;
}

/* --- what it is made of --- */

static void on_ready(void *ctx, struct node *n, bool ready)
{
	struct redis *r = ctx;

	(void)n;
	if (r->o.kind == REDIS_ONE)
		metric_set(r->connected, ready);
}

static void on_part_gone(void *ctx)
{
	struct redis *r = ctx;

	r->parts--;
	destroy_if_done(r);
}

static void open_node(void *ctx, unsigned place, const char *host, int port)
{
	struct redis *r = ctx;
	const struct redis_options *o = &r->o;

	r->parts++;
	r->nodes[place] = node_new(r->loop, &(struct node_options){
		.kind = o->kind,
		.conn = {.host = host, .port = port, .unix_path = o->unix_path, .user = o->user, .password = o->password, .db = o->db,
			.timeout_ms = o->timeout_ms, .max_pending = o->max_pending, .tls = o->tls},
		.key_prefix = o->key_prefix,
		.majority_ms = &r->majority_ms,
		.place = &r->places[place],
		.said = &r->said,
		.kept = {.replicas = &r->o.replicas, .send = send_kept, .again = again_kept, .on_end = on_kept},
		.on_ready = on_ready,
		.on_gone = on_part_gone,
		.ctx = r,
	});
	if (r->prefix)
		node_listen(r->nodes[place], r->prefix, r->on_changed, r->changed_ctx);
}

static void close_node(void *ctx, unsigned place)
{
	struct redis *r = ctx;
	struct node *n = r->nodes[place];

	r->nodes[place] = NULL; /* before those who wait for its answers are told */
	enter(r);
	node_free(n);
	leave(r);
}

static void on_master(void *ctx, const char *host, int port)
{
	struct redis *r = ctx;

	enter(r);
	r->majority_ms = r->o.proof_master ? INT64_MAX : PROOF_NEVER;
	close_node(r, 0);
	if (!r->freed)
		open_node(r, 0, host, port);
	leave(r);
}

static bool is_good(const struct redis *r)
{
	if (r->cluster)
		return cluster_is_covered(r->cluster) && is_believed(r);
	return r->nodes[0] && node_is_ready(r->nodes[0]) && is_believed(r);
}

static void on_proof(void *ctx, int64_t proven_ms)
{
	struct redis *r = ctx;

	if (r->freed)
		return;
	if (!r->o.proof_master)
		r->majority_ms = proven_ms;
	for (unsigned i = 0; i < NOBODY; i++)
		if (r->nodes[i])
			node_prove(r->nodes[i]);
	if (is_good(r))
		r->good_ms = clock_ms();
}

static struct conn *ready_conn(void *ctx, unsigned place)
{
	return conn_at(ctx, place);
}

static void on_void(void *ctx, unsigned place)
{
	struct redis *r = ctx;

	r->places[place].generation++;
}

static void on_map(void *ctx)
{
	struct redis *r = ctx;
	char tag[8];

	for (unsigned i = 0; i < NOBODY; i++)
		if (r->nodes[i])
			node_set_tag(r->nodes[i], slot_tag(cluster_owners(r->cluster), (uint8_t)i, tag) ? tag : "");
}

static void count_nodes(struct redis *r)
{
	int64_t ready = 0, all = 0;

	for (unsigned i = 0; i < NOBODY; i++) {
		all += r->nodes[i] != NULL;
		ready += r->nodes[i] && node_is_ready(r->nodes[i]);
	}
	metric_set(r->nodes_ready, ready);
	metric_set(r->nodes_away, all - ready);
}

static void on_clock(void *ctx)
{
	struct redis *r = ctx;

	timer_start(r->clock, CLOCK_MS);
	metric_set(r->connected, redis_is_ready(r));
	count_nodes(r);
}

static void series_init(struct redis *r)
{
	r->ok = metric_series(METRIC_REDIS_COMMANDS, "ok", NULL, NULL);
	r->error = metric_series(METRIC_REDIS_COMMANDS, "error", NULL, NULL);
	r->timeout = metric_series(METRIC_REDIS_COMMANDS, "timeout", NULL, NULL);
	r->unavailable = metric_series(METRIC_REDIS_COMMANDS, "unavailable", NULL, NULL);
	r->connected = metric_series(METRIC_REDIS_CONNECTED, NULL, NULL, NULL);
	r->unconfirmed = metric_series(METRIC_REDIS_UNCONFIRMED, NULL, NULL, NULL);
	r->moved = metric_series(METRIC_REDIS_REDIRECTIONS, "moved", NULL, NULL);
	r->ask = metric_series(METRIC_REDIS_REDIRECTIONS, "ask", NULL, NULL);
	r->nodes_ready = metric_series(METRIC_REDIS_NODES, "ready", NULL, NULL);
	r->nodes_away = metric_series(METRIC_REDIS_NODES, "away", NULL, NULL);
	r->parked = metric_series(METRIC_REDIS_WAITING, NULL, NULL, NULL);
	metric_set(r->connected, 0);
}

static void open_sentinels(struct redis *r, const struct redis_options *o)
{
	r->parts++;
	r->sentinels = sentinels_new(r->loop, &(struct sentinels_options){
		.hosts = o->hosts,
		.count = o->host_count,
		.master_name = o->master_name,
		.user = o->sentinel_user,
		.password = o->sentinel_password,
		.timeout_ms = r->o.timeout_ms,
		.tls = o->tls,
		.on_master = on_master,
		.on_proof = on_proof,
		.on_gone = on_part_gone,
		.ctx = r,
	});
}

static void open_cluster(struct redis *r, const struct redis_options *o)
{
	r->parts++;
	r->cluster = cluster_new(r->loop, &(struct cluster_options){
		.hosts = o->hosts,
		.count = o->host_count,
		.user = r->o.user,
		.password = r->o.password,
		.timeout_ms = r->o.timeout_ms,
		.tls = o->tls,
		.open = open_node,
		.close = close_node,
		.conn = ready_conn,
		.on_void = on_void,
		.on_map = on_map,
		.on_proof = on_proof,
		.on_gone = on_part_gone,
		.ctx = r,
	});
}

struct redis *redis_new(struct loop *l, const struct redis_options *o)
{
	struct redis *r = mem_alloc(sizeof(*r));

	r->loop = l;
	r->o = *o;
	r->o.unix_path = mem_strdup(o->unix_path);
	r->o.user = mem_strdup(o->user ? o->user : "");
	r->o.password = mem_strdup(o->password ? o->password : "");
	r->o.key_prefix = mem_strdup(o->key_prefix ? o->key_prefix : "");
	r->o.timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : 500;
	r->o.max_pending = o->max_pending > 0 ? o->max_pending : 1024;
	r->majority_ms = r->good_ms = PROOF_NEVER;
	r->seed = (unsigned)clock_us();
	TAILQ_INIT(&r->waiting);
	r->sweep = timer_new(l, on_sweep, r);
	for (size_t i = 0; i < NELEM(r->places); i++)
		r->places[i].proven_ms = PROOF_NEVER;
	series_init(r);
	r->clock = timer_new(l, on_clock, r);
	timer_start(r->clock, CLOCK_MS);
	if (o->kind == REDIS_SENTINEL)
		open_sentinels(r, o);
	else if (o->kind == REDIS_CLUSTER)
		open_cluster(r, o);
	else
		open_node(r, 0, o->host_count ? o->hosts[0].host : NULL, o->host_count ? o->hosts[0].port : 0);
	return r;
}

static void tell_waiting(struct redis *r)
{
	struct command *c;

	while ((c = TAILQ_FIRST(&r->waiting))) {
		unlink_command(r, c);
		metric_add(r->unavailable, 1);
		finish(c, OC_STORE_UNAVAILABLE, NULL);
	}
}

void redis_free(struct redis *r)
{
	if (!r || r->freed)
		return;
	r->freed = true;
	enter(r);
	timer_stop(r->sweep);
	sentinels_free(r->sentinels);
	cluster_free(r->cluster);
	for (unsigned i = 0; i < NOBODY; i++)
		if (r->nodes[i])
			close_node(r, i);
	tell_waiting(r);
	while (r->refused_len)
		tell_refused(r);
	metric_set(r->connected, 0);
	metric_set(r->parked, 0);
	leave(r);
}

/* A failover that is over before anybody's command is late is none of our callers' business. */
bool redis_is_ready(const struct redis *r)
{
	if (is_good(r))
		return true;
	return r->o.kind != REDIS_ONE && clock_ms() - r->good_ms < r->o.timeout_ms;
}

int redis_major(const struct redis *r)
{
	int least = 0;

	for (unsigned i = 0; i < NOBODY; i++) {
		int major = r->nodes[i] ? node_major(r->nodes[i]) : 0;

		if (r->nodes[i] && (least == 0 || major < least))
			least = major;
	}
	return least;
}

static const char *trouble_of_nodes(const struct redis *r)
{
	for (unsigned i = 0; i < NOBODY; i++)
		if (r->nodes[i] && !node_is_ready(r->nodes[i]))
			return node_trouble(r->nodes[i]);
	return r->cluster ? "the cluster's slots are not all owned, or more than half of its masters cannot be asked" : "";
}

const char *redis_trouble(const struct redis *r)
{
	const char *trouble;

	if (redis_is_ready(r))
		return "";
	trouble = r->sentinels ? sentinels_trouble(r->sentinels) : "";
	return *trouble ? trouble : trouble_of_nodes(r);
}

const struct redis_place *redis_listen(struct redis *r, const char *prefix, redis_changed_fn changed, void *ctx)
{
	r->prefix = mem_strdup(prefix);
	r->on_changed = changed;
	r->changed_ctx = ctx;
	for (unsigned i = 0; i < NOBODY; i++)
		if (r->nodes[i])
			node_listen(r->nodes[i], prefix, changed, ctx);
	return r->places;
}

unsigned redis_place_of(const struct redis *r, const char *key)
{
	unsigned owner = r->cluster ? cluster_owner(r->cluster, slot_of(key, strlen(key))) : 0;

	return owner < NOBODY ? owner : NOBODY;
}
