#include "io/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/metrics.h"

enum {
	TICK_MS = 50,
	SETTLE_MS = 150,   /* who was voted for tells everybody in less than that */
	MAP_MS = 10000,    /* how often the map is asked for anyhow, more or less */
	PARTIAL_MS = 1000, /* and while there are slots that nobody owns, or whose owner is away */
	UNREST_MS = 250,   /* and for a while after a new epoch, see there */
	UNREST_FOR_MS = 5000,
	/* maps with slots that nobody owns, one after another, until that is believed */
	PARTIAL_MAX = 3,
	PENDING = 4,
};

struct place {
	struct cluster *all;
	bool    used, owns;
	char    id[SLOT_ID_MAX];     /* "" = not known yet */
	char    host[SLOT_HOST_MAX];
	int     port;
	int64_t leaves_ms;           /* when it goes, being out of the map; 0 = it stays */
	struct vote vote;
	bool    asked;
	int64_t asked_ms;
};

struct cluster {
	struct loop *loop;
	struct cluster_options o;
	struct redis_host seeds[32];
	char *user, *password;
	struct timer *tick;
	struct place places[CLUSTER_PLACES];
	uint8_t owner[SLOTS];
	struct slot_map map;         /* as it was read last */
	size_t  covered;
	int64_t epoch, epoch_ms;     /* the largest that was seen, and when first */
	bool    sure;                /* the map was asked for late enough after that */
	bool    asking;              /* for the map */
	int64_t map_asked_ms, next_map_ms;
	int64_t source_epoch;        /* of whom was asked */
	const char *source_host;
	unsigned prefer;             /* whom to ask next */
	/* the last map was none to adopt: whoever is next in turn is asked */
	bool    distrust;
	int     partial;
	unsigned turn;
	struct conn *seed;
	unsigned seed_at;
	int64_t seed_ms;
	int     conns;
	bool    freed;
	unsigned random;
	struct metric_series *epochs;
};

/* ---- places ---- */

static void void_all(struct cluster *c)
{
	for (unsigned i = 0; i < CLUSTER_PLACES; i++)
		if (c->places[i].used)
			c->o.on_void(c->o.ctx, i);
}

static unsigned find(const struct cluster *c, const char *host, int port)
{
	for (unsigned i = 0; i < CLUSTER_PLACES; i++)
		if (c->places[i].used && c->places[i].port == port &&
			!strcmp(c->places[i].host, host))
			return i;
	return CLUSTER_NOBODY;
}

unsigned cluster_place(struct cluster *c, const char *host, int port)
{
	unsigned i = find(c, host, port);

	if (i != CLUSTER_NOBODY)
		return i;
	for (i = 0; i < CLUSTER_PLACES && c->places[i].used; i++)
		;
	if (i == CLUSTER_PLACES)
		return CLUSTER_NOBODY;
	c->places[i] =
		(struct place){.all = c, .used = true, .port = port, .vote.sent_ms = PROOF_NEVER};
	snprintf(c->places[i].host, SLOT_HOST_MAX, "%s", host);
	c->o.open(c->o.ctx, i, host, port);
	return i;
}

const char *cluster_host(const struct cluster *c, unsigned place)
{
	return c->places[place].host;
}

unsigned cluster_owner(const struct cluster *c, unsigned slot)
{
	return c->owner[slot];
}

const uint8_t *cluster_owners(const struct cluster *c)
{
	return c->owner;
}

bool cluster_is_covered(const struct cluster *c)
{
	if (c->covered != SLOTS)
		return false;
	for (unsigned i = 0; i < CLUSTER_PLACES; i++)
		if (c->places[i].owns && !c->o.conn(c->o.ctx, i))
			return false;
	return true;
}

/* What is in flight may still be answered: by a MOVED, most of the time. */
static void close_those_that_left(struct cluster *c, int64_t now)
{
	for (unsigned i = 0; i < CLUSTER_PLACES && !c->freed; i++) {
		struct place *p = &c->places[i];

		if (!p->used || !p->leaves_ms || now < p->leaves_ms)
			continue;
		p->used = false;
		c->o.close(c->o.ctx, i);
	}
}

/* ---- the proof ---- */

static void prove(struct cluster *c)
{
	struct vote votes[CLUSTER_PLACES];
	size_t n = 0;

	for (unsigned i = 0; i < CLUSTER_PLACES; i++)
		if (c->places[i].used && c->places[i].owns)
			votes[n++] = c->places[i].vote;
	if (c->sure)
		c->o.on_proof(c->o.ctx, quorum_ms(votes, n));
}

static void saw_epoch(struct cluster *c, int64_t epoch)
{
	if (epoch <= c->epoch)
		return;
	if (c->epoch >= 0)
		metric_add(c->epochs, 1);
	c->epoch = epoch;
	c->epoch_ms = clock_ms();
	c->sure = false;
	void_all(c);
	cluster_want_map(c, CLUSTER_NOBODY);
}

static void on_vote(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct place *p = a->owner;
	struct cluster *c = p->all;
	const char *text = redis_reply_str(v, NULL);
	int64_t epoch;
	bool ok;

	p->asked = false;
	if (fate != CONN_ANSWERED || c->freed || !text || !slot_info_read(text, &ok, &epoch))
		return;
	saw_epoch(c, epoch);
	p->vote = (struct vote){ok, p->asked_ms};
	prove(c);
}

static void ask_votes(struct cluster *c, int64_t now)
{
	for (unsigned i = 0; i < CLUSTER_PLACES; i++) {
		struct place *p = &c->places[i];
		struct asked a = {.fn = on_vote, .owner = p};
		struct conn *conn = p->used && p->owns && !p->asked ? c->o.conn(c->o.ctx, i) : NULL;

		p->asked_ms = conn ? now : p->asked_ms;
		p->asked = conn ? CONN_SEND(conn, &a, "CLUSTER", "INFO") : p->asked;
	}
}

/* ---- the map ---- */

/* Another cluster may have taken a seed's address. */
static bool is_the_same_cluster(const struct cluster *c)
{
	bool any = false;

	for (unsigned i = 0; i < CLUSTER_PLACES; i++) {
		if (!c->places[i].used || !c->places[i].id[0])
			continue;
		any = true;
		for (size_t k = 0; k < c->map.count; k++)
			if (!strcmp(c->map.nodes[k].id, c->places[i].id))
				return true;
	}
	return !any;
}

static bool is_adoptable(struct cluster *c)
{
	c->partial = c->map.covered == SLOTS ? 0 : c->partial + 1;
	if (c->map.count == 0 || c->source_epoch < c->epoch ||
		(c->partial > 0 && c->partial < PARTIAL_MAX))
		return false;
	if (is_the_same_cluster(c))
		return true;
	c->sure = false; /* it may be the address of one of our masters */
	c->o.on_proof(c->o.ctx, PROOF_NEVER);
	log_error("a host of redis.url belongs to another cluster now: it is ignored",
		LOG_STR("host", c->source_host));
	return false;
}

static void adopt(struct cluster *c)
{
	uint8_t place_of[SLOT_NODES_MAX] = {0};
	bool changed[CLUSTER_PLACES + 1] = {false}, different = false;

	for (size_t k = 0; k < c->map.count; k++) {
		place_of[k] = (uint8_t)cluster_place(c, c->map.nodes[k].host, c->map.nodes[k].port);
		if (place_of[k] != CLUSTER_NOBODY)
			memcpy(c->places[place_of[k]].id, c->map.nodes[k].id, SLOT_ID_MAX);
	}
	for (unsigned i = 0; i < CLUSTER_PLACES; i++)
		c->places[i].owns = false;
	c->covered = 0;
	for (unsigned s = 0; s < SLOTS; s++) {
		uint8_t who =
			c->map.owner[s] == SLOT_NOBODY ? CLUSTER_NOBODY : place_of[c->map.owner[s]];

		if (who != c->owner[s]) {
			different = true;
			if (c->owner[s] != CLUSTER_NOBODY)
				changed[c->owner[s]] = true;
		}
		c->owner[s] = who;
		if (who == CLUSTER_NOBODY)
			continue;
		c->places[who].owns = true;
		c->covered++;
	}
	for (unsigned i = 0; i < CLUSTER_PLACES; i++) {
		struct place *p = &c->places[i];

		p->leaves_ms = p->owns || !p->used ? 0
			       : p->leaves_ms      ? p->leaves_ms
						   : clock_ms() + c->o.timeout_ms;
		if (changed[i])
			c->o.on_void(c->o.ctx, i);
	}
	if (different)
		log_info("the map of the redis cluster", LOG_INT("masters", (int64_t)c->map.count),
			LOG_INT("slots", (int64_t)c->covered), LOG_INT("epoch", c->epoch));
	c->o.on_map(c->o.ctx);
}

static void next_map_in(struct cluster *c, int64_t ms)
{
	int64_t at = clock_ms() + ms;

	if (at < c->next_map_ms || c->next_map_ms == 0)
		c->next_map_ms = at;
}

/* An epoch is seen when an election begins. Where it takes longer than SETTLE_MS, the map that was
 * asked for meanwhile still names the old owner, and no other epoch tells of the election's end. */
static int64_t until_next_map(struct cluster *c)
{
	if (clock_ms() < c->epoch_ms + UNREST_FOR_MS)
		return UNREST_MS;
	if (c->partial || !cluster_is_covered(c))
		return PARTIAL_MS;
	return MAP_MS * 8 / 10 + rand_r(&c->random) % (MAP_MS * 4 / 10);
}

static void on_slots(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct cluster *c = a->owner;
	bool good;

	c->asking = false;
	if (c->freed)
		return;
	good = fate == CONN_ANSWERED && slot_map_read(&c->map, v, c->source_host) &&
	       is_adoptable(c);
	c->distrust = !good;
	next_map_in(c, good ? until_next_map(c) : TICK_MS);
	if (!good)
		return;
	c->sure = c->map_asked_ms >= c->epoch_ms + SETTLE_MS;
	if (!c->sure)
		next_map_in(c, SETTLE_MS);
	adopt(c);
	prove(c);
	if (!c->freed && c->seed) {
		conn_free(c->seed);
		c->seed = NULL;
	}
}

static void on_source_info(const struct asked *a, enum conn_fate fate, const struct redisReply *v)
{
	struct cluster *c = a->owner;
	const char *text = redis_reply_str(v, NULL);
	bool ok;

	c->source_epoch = -1;
	if (fate == CONN_ANSWERED && !c->freed && text &&
		slot_info_read(text, &ok, &c->source_epoch))
		saw_epoch(c, c->source_epoch);
}

static void ask_map(struct cluster *c, struct conn *conn, const char *host)
{
	struct asked info = {.fn = on_source_info, .owner = c},
		     slots = {.fn = on_slots, .owner = c};

	c->map_asked_ms = clock_ms();
	c->next_map_ms = 0;
	c->source_host = host;
	c->prefer = CLUSTER_NOBODY;
	CONN_SEND(conn, &info, "CLUSTER", "INFO");
	c->asking = CONN_SEND(conn, &slots, "CLUSTER", "SLOTS");
	if (!c->asking)
		next_map_in(c, TICK_MS);
}

static void on_seed_state(void *ctx, bool up)
{
	struct cluster *c = ctx;

	if (up && !c->asking)
		ask_map(c, c->seed, c->seeds[c->seed_at].host);
}

static void on_seed_gone(void *ctx)
{
	struct cluster *c = ctx;

	if (--c->conns > 0)
		return;
	c->o.on_gone(c->o.ctx);
	for (size_t i = 0; i < c->o.count; i++)
		free((char *)c->seeds[i].host);
	free(c->user);
	mem_free_secret(c->password);
	free(c);
}

/* Nobody that we know answers: one seed after another, each resolved anew. */
static void ask_seed(struct cluster *c, int64_t now)
{
	if (c->seed && conn_is_up(c->seed)) {
		ask_map(c, c->seed, c->seeds[c->seed_at].host);
		return;
	}
	if (c->seed && now - c->seed_ms < c->o.timeout_ms)
		return;
	if (c->seed)
		conn_free(c->seed);
	c->seed_at = (c->seed_at + 1) % (unsigned)c->o.count;
	c->seed_ms = now;
	c->conns++;
	c->seed = conn_new(c->loop, &(struct conn_options){.host = c->seeds[c->seed_at].host,
					    .port = c->seeds[c->seed_at].port,
					    .user = c->user,
					    .password = c->password,
					    .timeout_ms = c->o.timeout_ms,
					    .max_pending = PENDING,
					    .tls = c->o.tls,
					    .purpose = "map",
					    .on_state = on_seed_state,
					    .on_gone = on_seed_gone,
					    .ctx = c});
}

static void ask_somebody(struct cluster *c)
{
	int64_t now = clock_ms();
	struct conn *conn = c->prefer != CLUSTER_NOBODY && c->places[c->prefer].used
				    ? c->o.conn(c->o.ctx, c->prefer)
				    : NULL;
	unsigned at = c->prefer;

	if (c->asking || now - c->map_asked_ms < TICK_MS) {
		next_map_in(c, TICK_MS);
		return;
	}
	for (unsigned i = 0; i < CLUSTER_PLACES && !conn; i++) {
		at = (c->turn + i) % CLUSTER_PLACES;
		conn = c->places[at].used ? c->o.conn(c->o.ctx, at) : NULL;
	}
	c->turn = conn ? at + 1 : 0;
	if (conn)
		ask_map(c, conn, c->places[at].host);
	else
		ask_seed(c, now);
}

/* A node that was cut off says again and again that something is wrong, and knows no better map: it
 * is asked once. */
void cluster_want_map(struct cluster *c, unsigned from)
{
	if (c->freed)
		return;
	if (!c->distrust)
		c->prefer = from;
	next_map_in(c, 0);
}

void cluster_moved(struct cluster *c, unsigned from, const struct slot_redirect *to)
{
	unsigned place = cluster_place(c, to->host, to->port);

	cluster_want_map(c, from);
	if (place == CLUSTER_NOBODY || place == c->owner[to->slot])
		return;
	c->places[place].leaves_ms = 0;
	c->places[place].owns = true;
	c->owner[to->slot] = (uint8_t)place;
	c->o.on_void(c->o.ctx, from);
}

/* ---- ---- */

static void on_tick(void *ctx)
{
	struct cluster *c = ctx;
	int64_t now = clock_ms();

	timer_start(c->tick, TICK_MS);
	ask_votes(c, now);
	if (c->next_map_ms && now >= c->next_map_ms)
		ask_somebody(c);
	else if (!c->asking && !c->next_map_ms)
		next_map_in(c, TICK_MS);
	close_those_that_left(c, now); /* last: who waits there is told, and may free us */
}

struct cluster *cluster_new(struct loop *l, const struct cluster_options *o)
{
	struct cluster *c = mem_alloc(sizeof(*c));

	c->loop = l;
	c->o = *o;
	for (size_t i = 0; i < o->count; i++)
		c->seeds[i] = (struct redis_host){mem_strdup(o->hosts[i].host), o->hosts[i].port};
	c->user = mem_strdup(o->user ? o->user : "");
	c->password = mem_strdup(o->password ? o->password : "");
	c->epoch = -1;
	c->prefer = CLUSTER_NOBODY;
	c->map_asked_ms = PROOF_NEVER;
	c->random = (unsigned)clock_us();
	c->seed_at = (unsigned)o->count - 1;
	c->epochs = metric_series(METRIC_REDIS_EPOCHS, NULL, NULL, NULL);
	memset(c->owner, CLUSTER_NOBODY, sizeof(c->owner));
	c->conns = 1; /* ours */
	c->tick = timer_new(l, on_tick, c);
	timer_start(c->tick, 0);
	next_map_in(c, 0);
	return c;
}

void cluster_free(struct cluster *c)
{
	if (!c)
		return;
	c->freed = true;
	timer_free(c->tick);
	conn_free(c->seed);
	on_seed_gone(c);
}
