/* The store as its callers see it, and what it is made of: one node, the node that the sentinels
 * name, or the nodes of a cluster. */
#include "io/redis.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "io/redis_private.h"

enum { CLOCK_MS = 100 };

/* --- callbacks: the one way out, and who may free us meanwhile --- */

static void on_refuse(void *ctx);

static void destroy_if_done(struct redis *r)
{
	if (!r->freed || r->depth || r->parts)
		return;
	loop_undefer(r->loop, on_refuse, r);
	commands_fini(r);
	timer_free(r->clock);
	free(r->refused);
	free((char *)r->o.unix_path);
	free((char *)r->o.user);
	free((char *)r->o.key_prefix);
	free((char *)r->prefix);
	mem_free_secret((char *)r->o.password);
	free(r);
}

void redis_enter(struct redis *r)
{
	r->depth++;
}

void redis_leave(struct redis *r)
{
	r->depth--;
	destroy_if_done(r);
}

static void tell_refused(struct redis *r)
{
	/* Who is refused again by its callback waits for another turn; redis_free in a callback
	 * tells the rest. */
	for (size_t n = r->refused_len; r->refused_told < n && r->refused_len;) {
		struct refused one = r->refused[r->refused_told++];

		one.cb(one.ctx, OC_STORE_UNAVAILABLE, NULL);
	}
	r->refused_len -= r->refused_told;
	if (r->refused_len)
		memmove(r->refused, r->refused + r->refused_told,
			r->refused_len * sizeof(*r->refused));
	r->refused_told = 0;
}

static void on_refuse(void *ctx)
{
	struct redis *r = ctx;

	redis_enter(r);
	tell_refused(r);
	if (r->refused_len)
		loop_defer(r->loop, on_refuse, r);
	redis_leave(r);
}

void redis_refuse(struct redis *r, redis_cb cb, void *ctx)
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

/* The connection for commands to whoever is there, once it is ready. */
struct conn *redis_conn_at(const struct redis *r, unsigned place)
{
	struct node *n = place < NOBODY ? r->nodes[place] : NULL;

	return n && !r->freed && node_is_ready(n) ? node_conn(n) : NULL;
}

/* An old master that was cut off answers as if nothing were. */
bool redis_is_believed(const struct redis *r)
{
	return r->o.kind == REDIS_ONE || r->o.proof_master ||
	       clock_ms() - r->majority_ms < r->o.timeout_ms;
}

/* --- what it is made of --- */

/* In a cluster, who was lost may own nothing any more; and who is there now, at the same address,
 * is asked whose map it has. */
static void on_ready(void *ctx, struct node *n, bool ready)
{
	struct redis *r = ctx;
	unsigned place = 0;

	if (r->o.kind == REDIS_ONE)
		metric_set(r->connected, ready);
	if (!r->cluster)
		return;
	while (place < NOBODY && r->nodes[place] != n)
		place++;
	cluster_want_map(r->cluster, ready && place < NOBODY ? place : CLUSTER_NOBODY);
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
	if (place >= r->used)
		r->used = place + 1;
	r->nodes[place] = node_new(r->loop, &(struct node_options){
						    .kind = o->kind,
						    .conn = {.host = host,
							    .port = port,
							    .unix_path = o->unix_path,
							    .user = o->user,
							    .password = o->password,
							    .db = o->db,
							    .timeout_ms = o->timeout_ms,
							    .max_pending = o->max_pending,
							    .tls = o->tls},
						    .key_prefix = o->key_prefix,
						    .majority_ms = &r->majority_ms,
						    .place = &r->places[place],
						    .said = &r->said,
						    .kept = {.replicas = &r->o.replicas,
							    .send = command_send_kept,
							    .again = command_again_kept,
							    .on_end = command_on_kept},
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
	redis_enter(r);
	node_free(n);
	redis_leave(r);
}

static void on_master(void *ctx, const char *host, int port)
{
	struct redis *r = ctx;

	redis_enter(r);
	r->majority_ms = r->o.proof_master ? INT64_MAX : PROOF_NEVER;
	close_node(r, 0);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between redis_enter and redis_leave r lives */
	if (!r->freed)
		open_node(r, 0, host, port);
	redis_leave(r);
}

static bool is_good(const struct redis *r)
{
	if (r->cluster)
		return cluster_is_covered(r->cluster) && redis_is_believed(r);
	return r->nodes[0] && node_is_ready(r->nodes[0]) && redis_is_believed(r);
}

static void on_proof(void *ctx, int64_t proven_ms)
{
	struct redis *r = ctx;

	if (r->freed)
		return;
	if (!r->o.proof_master)
		r->majority_ms = proven_ms;
	for (unsigned i = 0; i < r->used; i++)
		if (r->nodes[i])
			node_prove(r->nodes[i]);
	if (is_good(r))
		r->good_ms = clock_ms();
}

static struct conn *ready_conn(void *ctx, unsigned place)
{
	return redis_conn_at(ctx, place);
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

	for (unsigned i = 0; i < r->used; i++)
		if (r->nodes[i])
			node_set_tag(r->nodes[i],
				slot_tag(cluster_owners(r->cluster), (uint8_t)i, tag) ? tag : "");
}

static void count_nodes(struct redis *r)
{
	int64_t ready = 0, all = 0;

	for (unsigned i = 0; i < r->used; i++) {
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
	/* io/cluster.c counts them: it is 0 where there is none */
	metric_series(METRIC_REDIS_EPOCHS, NULL, NULL, NULL);
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
	r->born_ms = clock_ms();
	commands_init(r);
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
		open_node(r, 0, o->host_count ? o->hosts[0].host : NULL,
			o->host_count ? o->hosts[0].port : 0);
	return r;
}

void redis_free(struct redis *r)
{
	if (!r || r->freed)
		return;
	r->freed = true;
	redis_enter(r);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): between redis_enter and redis_leave r lives */
	for (unsigned i = 0; i < r->used; i++)
		if (r->nodes[i])
			close_node(r, i);
	sentinels_free(r->sentinels);
	cluster_free(r->cluster); /* after the nodes: their votes are told to it */
	commands_tell_all(r);
	while (r->refused_len)
		tell_refused(r);
	metric_set(r->connected, 0);
	metric_set(r->parked, 0);
	redis_leave(r);
}

/* A failover that is over before anybody's command is late is none of our callers' business. */
bool redis_is_ready(const struct redis *r)
{
	if (is_good(r))
		return true;
	return r->o.kind != REDIS_ONE && clock_ms() - r->good_ms < r->o.timeout_ms;
}

bool redis_is_starting(const struct redis *r)
{
	bool failed = r->o.kind == REDIS_ONE && *node_trouble(r->nodes[0]);

	return !redis_is_ready(r) && !failed && clock_ms() - r->born_ms < r->o.timeout_ms;
}

int redis_major(const struct redis *r)
{
	int least = INT_MAX;

	for (unsigned i = 0; i < r->used; i++)
		if (r->nodes[i] && node_major(r->nodes[i]) < least)
			least = node_major(r->nodes[i]);
	return least < INT_MAX ? least : 0;
}

static const char *trouble_of_nodes(const struct redis *r)
{
	for (unsigned i = 0; i < r->used; i++)
		if (r->nodes[i] && !node_is_ready(r->nodes[i]))
			return node_trouble(r->nodes[i]);
	return r->cluster ? "the cluster's slots are not all owned, or more than half of its "
			    "masters cannot be asked"
			  : "";
}

const char *redis_trouble(const struct redis *r)
{
	const char *trouble;

	if (redis_is_ready(r))
		return "";
	trouble = r->sentinels ? sentinels_trouble(r->sentinels) : "";
	return *trouble ? trouble : trouble_of_nodes(r);
}

const struct redis_place *redis_listen(
	struct redis *r, const char *prefix, redis_changed_fn changed, void *ctx)
{
	r->prefix = mem_strdup(prefix);
	r->on_changed = changed;
	r->changed_ctx = ctx;
	for (unsigned i = 0; i < r->used; i++)
		if (r->nodes[i])
			node_listen(r->nodes[i], prefix, changed, ctx);
	return r->places;
}

unsigned redis_place_of(const struct redis *r, const char *key)
{
	unsigned owner = r->cluster ? cluster_owner(r->cluster, slot_of(key, strlen(key))) : 0;

	return owner < NOBODY ? owner : NOBODY;
}
