/* What wxlogind tells Redis on the local stack: each line of MONITOR becomes an event, without what
 * might be a secret. MONITOR shows every client. wxlogind's connections are those that call
 * themselves "wxlogind...": CLIENT LIST names them at the start, and CLIENT SETNAME when they come
 * later. All clients of one unix socket have the same address there, and count as one.
 *
 * Shown are a command's name, keys (a long part of one by its first four characters), numbers and
 * option words. Of any other argument, a sealed session_key, an openid, a script's text, only the
 * length is told. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include <utlist.h>

#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "fake.h"
#include "io/conn.h"
#include "io/resolve.h"

enum {
	LINE_MAX_BYTES = 64 * 1024,
	ARGS_MAX = 16,
	KEY_PART = 8,
	KEY_SHOWN = 4,
	WORD_MAX = 20,
	PORTS_MAX = 16
};
enum {
	OURS_MAX = 64,
	ADDRESS_MAX = 128,
	AGAIN_MS = 100 /* a page that opens meanwhile misses what Redis is told */
};

/* wxlogind's and what begins with it; but group.c asks by connections of wxlogind's make */
static const char our_name[] = "wxlogind", own_name[] = "wxlogind-wxfake";

/* wxlogind tests its connections with these several times a second: true, but it would drown all
 * else. In a cluster it also asks each master for a key of a slot of its own ("…h:{tag}"). */
static const char *const heartbeats[] = {
	"PING", "ROLE", "INFO", "SUBSCRIBE __redis__:invalidate", "CLUSTER INFO"};
static const char slot_key[] = "h:{";

struct monitor {
	struct monitor *prev, *next;
	struct fake *f;
	struct server *server; /* as the group knows it, or NULL */
	struct bufferevent *bev;
	struct timer *again;
	struct resolve *resolve;
	char name[300]; /* "host:port", or the path */
	char host[256], user[128], password[256]; /* "" = none */
	int port;
	struct sockaddr_un path; /* in place of host and port when sun_family is set */
	/* addresses of wxlogind's connections; the oldest makes room */
	char ours[OURS_MAX][ADDRESS_MAX];
	int next_ours;
	/* whose the latest EVAL was: the lines "lua" that follow are its commands */
	bool script_is_ours;
};

/* ---- one line: +1339518083.107412 [0 127.0.0.1:60866] "keys" "*" ---- */

static void add_byte(struct buf *b, int c)
{
	char byte = (char)c;

	buf_add(b, &byte, 1);
}

/* The next quoted argument, its escapes undone. NULL: there is none, or the line was cut. */
static const char *next_arg(const char *p, struct buf *arg)
{
	unsigned hex;

	buf_clear(arg);
	while (*p == ' ')
		p++;
	if (*p++ != '"')
		return NULL;
	for (; *p && *p != '"'; p++) {
		if (*p != '\\') {
			add_byte(arg, *p);
		} else if (p[1] == 'x' && isxdigit((unsigned char)p[2]) &&
			   sscanf(p + 2, "%2x", &hex) == 1) {
			add_byte(arg, (int)hex);
			p += 3;
		} else if (p[1]) {
			/* \n stands for another byte than n, but only its length is told */
			add_byte(arg, *++p);
		}
	}
	return *p ? p + 1 : NULL;
}

static bool consists_of(const struct buf *b, size_t from, const char *extra, bool lower)
{
	for (size_t i = from; i < b->len; i++) {
		unsigned char c = (unsigned char)b->data[i];

		if (!(isdigit(c) || isupper(c) || (lower && islower(c)) || (c && strchr(extra, c))))
			return false;
	}
	return b->len > from;
}

/* A key, or the channel of a subscription: parts between colons, of which long ones are hashes,
 * appids or the like. */
static void add_name(struct buf *out, const struct buf *arg)
{
	struct buf b = {0};
	const char *p = arg->data;

	for (;;) {
		const char *word = p + strspn(p, "{");
		size_t n = strcspn(p, ":"), skip = (size_t)(word - p), len = strcspn(word, ":}");

		if (len > KEY_PART) {
			buf_add(&b, p, skip + KEY_SHOWN);
			buf_str(&b, "\xe2\x80\xa6"); /* ... */
			buf_add(&b, word + len, n - skip - len);
		} else {
			buf_add(&b, p, n);
		}
		p += n;
		if (!*p++)
			break;
		buf_str(&b, ":");
	}
	buf_json_str(out, b.data, b.len);
	buf_free(&b);
}

static bool is_number(const struct buf *b)
{
	return b->len <= WORD_MAX && strspn(b->data, "(+-.0123456789") == b->len;
}

static bool is_word(const struct buf *b)
{
	return (b->len <= WORD_MAX && consists_of(b, 0, "_", false)) || !strcmp(b->data, "+inf") ||
	       !strcmp(b->data, "-inf");
}

/* How wxlogind marks a session that was ended: !revoked, !replaced, !logged_out. */
static bool is_mark(const struct buf *b)
{
	return b->len <= WORD_MAX && b->data[0] == '!' && consists_of(b, 1, "_", true);
}

static void add_arg(struct buf *out, const struct buf *arg, bool may_be_key)
{
	char text[32];
	int n;

	if (arg->len && (is_number(arg) || is_word(arg) || is_mark(arg))) {
		buf_json_str(out, arg->data, arg->len);
	} else if (arg->len && arg->len <= 200 && consists_of(arg, 0, ":{}_.-", true) &&
		   (may_be_key || strchr(arg->data, ':'))) {
		add_name(out, arg);
	} else {
		n = snprintf(text, sizeof(text), "(%zu B)", arg->len);
		buf_json_str(out, text, (size_t)n);
	}
}

static bool is_heartbeat(const char *name, const char *rest)
{
	struct buf arg = {0}, line = {0};
	const char *first = next_arg(rest, &arg) && arg.len ? arg.data : "";
	bool same = !strcasecmp(name, "GET") && strstr(first, slot_key);

	buf_printf(&line, "%s %s", name, first);
	for (size_t i = 0; i < NELEM(heartbeats); i++)
		same = same || !strcasecmp(name, heartbeats[i]) ||
		       !strcasecmp(line.data, heartbeats[i]);
	buf_free(&line);
	buf_free(&arg);
	return same;
}

static void tell_command(struct monitor *m, int64_t wall_us, bool script, const char *args)
{
	struct buf b = {0}, arg = {0};
	const char *p = next_arg(args, &arg);
	bool eval;

	if (p && arg.len && arg.len <= WORD_MAX && !is_heartbeat(arg.data, p)) {
		eval = !strncasecmp(arg.data, "EVAL", 4);
		buf_str(&b, "event: redis\ndata: ");
		events_at(&b, wall_us);
		buf_str(&b, ",\"server\":");
		buf_json_str(&b, m->name, strlen(m->name));
		buf_printf(&b, ",\"script\":%s,\"command\":", script ? "true" : "false");
		buf_json_str(&b, arg.data, arg.len);
		buf_str(&b, ",\"args\":[");
		for (int i = 0; i < ARGS_MAX && (p = next_arg(p, &arg)); i++) {
			buf_str(&b, i ? "," : "");
			add_arg(&b, &arg, i == 0 && !eval);
		}
		buf_str(&b, "]}\n\n");
		events_tell(m->f, b.data, b.len);
		if (m->server)
			group_used(m->server);
	}
	buf_free(&arg);
	buf_free(&b);
}

/* ---- whose line it is ---- */

static bool is_ours(const struct monitor *m, const char *address)
{
	for (int i = 0; i < OURS_MAX; i++)
		if (!strcmp(m->ours[i], address))
			return true;
	return false;
}

static void add_ours(struct monitor *m, const char *address)
{
	if (is_ours(m, address))
		return;
	snprintf(m->ours[m->next_ours], ADDRESS_MAX, "%s", address);
	m->next_ours = (m->next_ours + 1) % OURS_MAX;
}

static bool is_our_name(const char *name)
{
	return !strncmp(name, our_name, sizeof(our_name) - 1) &&
	       strncmp(name, own_name, sizeof(own_name) - 1) != 0;
}

/* id=3 addr=127.0.0.1:60866 laddr=... fd=8 name=wxlogind ... Of a unix socket: addr=/path:0 */
static void on_client(struct monitor *m, const char *line)
{
	const char *addr = strstr(line, " addr="), *name = strstr(line, " name=");
	char path[ADDRESS_MAX], address[ADDRESS_MAX + 8];

	if (!addr || !name || !is_our_name(name + 6) ||
		sscanf(addr + 6, "%127[^ ]", path) != 1)
		return;
	if (path[0] == '/')
		snprintf(address, sizeof(address), "unix:%.*s", (int)strcspn(path, ":"), path);
	else
		snprintf(address, sizeof(address), "%s", path);
	add_ours(m, address);
}

/* CLIENT SETNAME wxlogind: a connection of ours from now on. */
static void learn_name(struct monitor *m, const char *address, const char *args)
{
	struct buf arg = {0};
	const char *p = next_arg(args, &arg);

	if (p && arg.len && !strcasecmp(arg.data, "CLIENT") && (p = next_arg(p, &arg)) && arg.len &&
		!strcasecmp(arg.data, "SETNAME") && next_arg(p, &arg) && arg.len &&
		is_our_name(arg.data))
		add_ours(m, address);
	buf_free(&arg);
}

static void on_line(struct monitor *m, const char *line)
{
	/* [::1] has a ] of its own */
	const char *bracket = strchr(line, '['), *args = strstr(line, "] "), *source;
	char address[ADDRESS_MAX];
	long long s;
	bool script;
	int us;

	if (!bracket || !args || sscanf(line, "+%lld.%6d", &s, &us) != 2)
		return;
	source = bracket + strcspn(bracket, " ");
	source += *source == ' ';
	if (source > args)
		return;
	snprintf(address, sizeof(address), "%.*s", (int)(args - source), source);
	script = !strcmp(address, "lua");
	if (!script) {
		learn_name(m, address, args + 2);
		m->script_is_ours = is_ours(m, address);
	}
	if (m->script_is_ours)
		tell_command(m, s * 1000000 + us, script, args + 2);
}

/* ---- the connection ---- */

/* As an array of strings, whatever they hold. */
static void send_auth(struct monitor *m)
{
	struct evbuffer *out = bufferevent_get_output(m->bev);
	const char *user = *m->user ? m->user : "default"; /* Redis 6 and later */

	evbuffer_add_printf(out, "*3\r\n$4\r\nAUTH\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(user),
		user, strlen(m->password), m->password);
}

static void start_again(struct monitor *m)
{
	bufferevent_free(m->bev);
	m->bev = NULL;
	timer_start(m->again, AGAIN_MS);
}

static void on_event(struct bufferevent *bev, short what, void *ctx)
{
	struct monitor *m = ctx;

	(void)bev;
	if (what & BEV_EVENT_CONNECTED) {
		if (*m->password)
			send_auth(m);
		evbuffer_add_printf(bufferevent_get_output(bev), "CLIENT LIST\r\nMONITOR\r\n");
		return;
	}
	start_again(m);
}

/* False: Redis reads its file still (-LOADING), and is asked again. */
static bool take_line(struct monitor *m, const char *line)
{
	if (!strncmp(line, "-LOADING", 8))
		return false;
	if (*line == '-')
		log_warn("Redis refuses to be watched", LOG_STR("answer", line));
	if (!strncmp(line, "id=", 3))
		on_client(m, line);
	else
		on_line(m, line);
	return true;
}

static void on_read(struct bufferevent *bev, void *ctx)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	bool taken = true;
	char *line;

	while (taken && (line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF))) {
		taken = take_line(ctx, line);
		free(line);
	}
	if (!taken)
		start_again(ctx);
	else if (evbuffer_get_length(in) > LINE_MAX_BYTES)
		evbuffer_drain(in, evbuffer_get_length(in));
}

static void connect_to(struct monitor *m, const struct sockaddr *at, size_t len)
{
	m->bev = bufferevent_socket_new(loop_base(m->f->loop), -1, BEV_OPT_CLOSE_ON_FREE);
	if (m->bev) {
		bufferevent_setcb(m->bev, on_read, NULL, on_event, m);
		bufferevent_enable(m->bev, EV_READ | EV_WRITE);
		if (bufferevent_socket_connect(m->bev, at, (int)len) == 0 || !m->bev)
			return;
		bufferevent_free(m->bev);
		m->bev = NULL;
	}
	timer_start(m->again, AGAIN_MS);
}

static void on_address(void *ctx, const struct addrinfo *list, const char *error)
{
	struct monitor *m = ctx;

	(void)error; /* a stack comes up in any order: ask again */
	m->resolve = NULL;
	if (list)
		connect_to(m, list->ai_addr, list->ai_addrlen);
	else
		timer_start(m->again, AGAIN_MS);
}

static void start(void *ctx)
{
	struct monitor *m = ctx;

	if (m->path.sun_family)
		connect_to(m, (const struct sockaddr *)(const void *)&m->path, sizeof(m->path));
	else
		m->resolve = resolve_start(m->f->loop, m->host, m->port, on_address, m);
}

static bool decode_into(char *out, size_t cap, const char *s, size_t n)
{
	return n < cap && percent_decode(out, s, n, false) >= 0;
}

/* ":6379" or ":6379-6381"; what is not there is 6379. Returns what follows, or NULL. */
static const char *read_ports(const char *p, int *first, int *last)
{
	int end = 0;

	*first = *last = 6379;
	if (*p != ':')
		return p;
	if (sscanf(p, ":%5d%n", first, &end) != 1)
		return NULL;
	p += end;
	*last = *first;
	if (*p == '-' && sscanf(p, "-%5d%n", last, &end) == 1)
		p += end;
	return *first >= 1 && *last >= *first && *last <= 65535 && *last - *first < PORTS_MAX
		       ? p
		       : NULL;
}

/* redis://[[user]:password@]host[:port[-port]], and a database that does not matter: MONITOR shows
 * all of them */
static bool read_redis_url(struct monitor *m, const char *url, int *last_port)
{
	const char *rest = url + 8, *at, *host, *end;
	size_t n;

	if (strncmp(url, "redis://", 8))
		return false;
	at = strrchr(rest, '@');
	host = at ? at + 1 : rest;
	if (at) {
		const char *sep = memchr(rest, ':', (size_t)(at - rest));

		if (!sep || !decode_into(m->user, sizeof(m->user), rest, (size_t)(sep - rest)) ||
		    !decode_into(m->password, sizeof(m->password), sep + 1, (size_t)(at - sep - 1)))
			return false;
	}
	n = strcspn(host, ":/");
	if (!decode_into(m->host, sizeof(m->host), host, n) || !*m->host)
		return false;
	end = read_ports(host + n, &m->port, last_port);
	return end && (*end == '\0' ||
			      (*end == '/' && end[1 + strspn(end + 1, "0123456789")] == '\0'));
}

static bool read_url(struct monitor *m, const char *url, int *last_port)
{
	*last_port = 0;
	if (strncmp(url, "unix:///", 8) != 0)
		return read_redis_url(m, url, last_port);
	if (strlen(url + 7) >= sizeof(m->path.sun_path))
		return false;
	m->path.sun_family = AF_UNIX;
	strcpy(m->path.sun_path, url + 7);
	return true;
}

static void add(struct fake *f, const struct monitor *like, int port)
{
	struct monitor *m = mem_alloc(sizeof(*m));

	*m = *like;
	m->f = f;
	m->port = port;
	if (m->path.sun_family)
		snprintf(m->name, sizeof(m->name), "%s", m->path.sun_path);
	else
		snprintf(m->name, sizeof(m->name), "%s:%d", m->host, port);
	m->again = timer_new(f->loop, start, m);
	DL_APPEND(f->monitors, m);
	if (f->kill_redis)
		m->server = group_add(f, &(struct conn_options){
						 .host = m->path.sun_family ? NULL : m->host,
						 .port = port,
						 .unix_path = m->path.sun_family ? m->path.sun_path
										 : NULL,
						 .user = m->user,
						 .password = m->password,
					 });
	start(m);
}

bool monitor_start(struct fake *f, const char *url, char *err, size_t err_len)
{
	struct monitor read = {0};
	int last_port;
	bool ok = read_url(&read, url, &last_port);

	if (ok)
		for (int port = read.port; port <= last_port; port++)
			add(f, &read, port);
	else
		snprintf(err, err_len,
			"--watch-redis: must be redis://[[user]:password@]host[:port[-port]] or "
			"unix:///path");
	mem_wipe(&read, sizeof(read));
	return ok;
}

void monitor_free(struct fake *f)
{
	struct monitor *m, *next;

	DL_FOREACH_SAFE(f->monitors, m, next) {
		DL_DELETE(f->monitors, m);
		timer_free(m->again);
		resolve_cancel(m->resolve);
		if (m->bev)
			bufferevent_free(m->bev);
		mem_wipe(m, sizeof(*m));
		free(m);
	}
}
