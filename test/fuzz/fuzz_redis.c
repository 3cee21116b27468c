/* Redis' bytes, played by a peer on a unix socket: the real connection, and every module that reads
 * replies. Whatever comes: nothing aborts, each callback comes exactly once and never before the
 * call returns, and what is handed on keeps its promise.
 *
 * Input: which callers (bits) and on which connection the peer is unruly; then what it says, 0x1e
 * ends a turn of the loop. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/encode.h"
#include "common/log.h"
#include "common/mem.h"
#include "io/loop.h"
#include "io/redis.h"
#include "store/cache.h"
#include "store/code.h"
#include "store/seal.h"
#include "store/session.h"
#include "store/token.h"

enum { TURNS_MAX = 200 };

static char dir[] = "/tmp/wxlogind-fuzz-XXXXXX", path[64];
static int listener;
static struct loop *loop;
static struct seal *seal;
static struct codes *codes;
static struct code_claim claim;
static const char token[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"; /* bytes 0 to 31 */

static void clean_up(void)
{
	unlink(path);
	rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const uint8_t key[1][SEAL_KEY_LEN] = {{1, 2, 3}};
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	(void)argc;
	(void)argv;
	log_init((enum log_level)(LOG_ERROR + 1), LOG_LOGFMT);
	MUST(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/redis.sock", dir);
	atexit(clean_up);
	strcpy(un.sun_path, path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	MUST(listener >= 0 && bind(listener, (struct sockaddr *)&un, sizeof(un)) == 0 &&
		listen(listener, 16) == 0);
	loop = loop_new();
	seal = seal_new(key, 1);
	return 0;
}

static void turn(void)
{
	event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
}

/* ---- callers ---- */

static int asked, told;
static bool starting;

static void once(void)
{
	MUST(!starting); /* never before the starter returns */
	told++;
	MUST(told <= asked);
}

static void on_created(
	void *ctx, enum outcome oc, const char *t, int64_t expires_in_s, int64_t created_ms)
{
	(void)created_ms;
	(void)ctx;
	once();
	MUST((oc == OC_OK) == (t != NULL));
	if (t)
		MUST(session_token_ok(t) && expires_in_s >= 0);
}

static void on_got(void *ctx, enum outcome oc, const struct session *ses, const char *reason)
{
	(void)ctx;
	once();
	MUST((oc == OC_OK) == (ses != NULL) && (oc == OC_INVALID_SESSION) == (reason != NULL));
	MUST(oc == OC_OK || oc == OC_INVALID_SESSION || oc == OC_STORE_UNAVAILABLE);
	if (ses)
		MUST(*ses->appid && *ses->openid && ses->unionid && !strpbrk(ses->openid, "|\r\n"));
}

static void on_done(void *ctx, enum outcome oc)
{
	(void)ctx;
	(void)oc;
	once();
}

static void on_keys(void *ctx, enum outcome oc, const char *const *keys, size_t n)
{
	(void)ctx;
	once();
	MUST(n <= SESSION_KEYS_MAX && (oc == OC_OK || n == 0));
	for (size_t i = 0; i < n; i++)
		MUST(keys[i] && strlen(keys[i]) < 10000);
}

static void on_list(void *ctx, enum outcome oc, const struct session_listed *list, size_t n)
{
	(void)ctx;
	once();
	MUST(oc == OC_OK || n == 0);
	for (size_t i = 0; i < n; i++)
		MUST(list[i].id && list[i].ip && list[i].user_agent && list[i].expires_in_s >= 0);
}

static void on_claimed(void *ctx, enum outcome oc, const struct claim_answer *ans)
{
	(void)ctx;
	once();
	MUST((oc == OC_OK) == (ans != NULL));
	if (ans && ans->state == CLAIM_SESSION)
		MUST(session_token_ok(ans->token));
	if (ans && ans->state == CLAIM_REFUSED)
		MUST(ans->refused == OC_INVALID_CODE || ans->refused == OC_USER_BLOCKED);
}

static void on_look(void *ctx, enum outcome oc, const struct token_look *look)
{
	(void)ctx;
	once();
	MUST((oc == OC_OK) == (look != NULL));
	if (look)
		MUST(!look->token || look->left_ms > 0);
}

static void on_saved(void *ctx, enum outcome oc, bool dead)
{
	(void)ctx;
	(void)oc;
	(void)dead;
	once();
}

static void on_force(void *ctx, enum outcome oc, int64_t wait_ms)
{
	(void)ctx;
	(void)oc;
	(void)wait_ms;
	once();
}

static void ask(struct sessions *s, struct tokens *t, unsigned which)
{
	static const struct session_login in = {.appid = "wx1",
		.openid = "o1",
		.unionid = "",
		.session_key = "k",
		.ip = "192.0.2.1",
		.user_agent = "a"};
	struct session ses;

	starting = true;
	switch (which) {
	case 0:
		session_create(s, &in, on_created, NULL);
		break;
	case 1:
		session_recall(s, token, true, &ses);
		session_get(s, token, true, on_got, NULL);
		asked++;
		session_get(s, token, false, on_got, NULL); /* joins */
		break;
	case 2:
		session_end(s, token, "logged_out", on_done, NULL);
		break;
	case 3:
		session_end_user(s, "wx1", "o1", on_done, NULL);
		break;
	case 4:
		session_keys(s, "wx1", "o1", on_keys, NULL);
		break;
	case 5:
		session_list(s, "wx1", "o1", on_list, NULL);
		break;
	case 6:
		code_claim_init(codes, &claim, "wx1", "code", NULL);
		code_claim_try(codes, &claim, 1000, on_claimed, NULL);
		break;
	case 7:
		token_look(t, "wx1", &(struct token_report){.token = "bad"}, "holder", 1000,
			on_look, NULL);
		asked++;
		token_save(t, "wx1", "holder", "token", 7200, on_saved, NULL);
		asked++;
		token_force(t, "wx1", on_force, NULL);
		break;
	}
	asked++;
	starting = false;
}

/* ---- the peer ---- */

static int take_connection(void)
{
	int fd = -1;

	for (int i = 0; fd < 0 && i < TURNS_MAX; i++) {
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		turn();
	}
	MUST(fd >= 0);
	return fd;
}

/* What it says until the socket takes no more; it never reads, which nobody notices on so short a
 * visit. */
static void says(int fd, const void *p, size_t n)
{
	ssize_t did = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)did; /* we may have hung up on it */
	turn();
	turn();
}

static void is_unruly(int fd, struct input *in)
{
	while (in->n > 0) {
		const uint8_t *end = memchr(in->p, 0x1e, in->n);
		size_t n = end ? (size_t)(end - in->p) : in->n;

		if (n)
			says(fd, in->p, n);
		in->p += n + (end != NULL);
		in->n -= n + (end != NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char hello[] = "+OK\r\n+PONG\r\n",
			  who[] = "*1\r\n$6\r\nmaster\r\n$11\r\nrun_id:ab\r\n\r\n";
	static const char tracking[] = ":7\r\n", tracked[] = "+OK\r\n";
	struct input in = {data, size};
	unsigned callers = take_byte(&in), how = take_byte(&in);
	struct redis_options o = {.unix_path = path, .timeout_ms = 2000, .max_pending = 16};
	struct redis *r = redis_new(loop, &o);
	int fd = take_connection(), cache_fd = -1;
	struct cache *cache = NULL;
	struct sessions *s;
	struct tokens *t;

	asked = told = 0;
	says(fd, hello, sizeof(hello) - 1);
	says(fd, who, sizeof(who) - 1);
	MUST(redis_is_ready(r));
	if (how & 1) {
		cache = cache_new(r, "p:s:", 4, o.timeout_ms);
		cache_fd = take_connection();
		says(cache_fd, hello, sizeof(hello) - 1);
		says(cache_fd, who, sizeof(who) - 1);
	}
	if (how & 2 && cache) {
		says(cache_fd, tracking, sizeof(tracking) - 1);
		says(cache_fd, tracked, sizeof(tracked) - 1);
	}
	s = sessions_new(r, &(struct sessions_options){.key_prefix = "p:",
				    .ttl_ms = 1000000,
				    .max_age_ms = 2000000,
				    .timeout_ms = 2000,
				    .seal = seal,
				    .cache = cache});
	t = tokens_new(r, "p:", seal);
	codes = codes_new(r, &(struct codes_options){
				     .key_prefix = "p:", .replay_window_ms = how & 4 ? 0 : 1000});
	for (unsigned i = 0; i < 8; i++)
		if (callers & 1u << i)
			ask(s, t, i);
	is_unruly(how & 8 && cache ? cache_fd : fd, &in);
	close(fd);
	if (cache_fd >= 0)
		close(cache_fd);
	for (int i = 0; i < TURNS_MAX && told < asked; i++)
		turn();
	MUST(told == asked);
	redis_free(r);
	MUST(told == asked);
	codes_free(codes);
	sessions_free(s);
	tokens_free(t);
	cache_free(cache);
	while ((fd = accept(listener, NULL, NULL)) >= 0)
		close(fd);
	return 0;
}
