/* The whole gate to callers, over a socket: pipelined bytes in one piece or in many, answered at
 * once or some turns later, give the same answers in the same order; each answer is whole, and each
 * request reaches the handler as vet read it.
 *
 * Input: a seed for the pieces and the handler's delays; then what a caller sends before it says
 * that this was all. */
#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/mem.h"
#include "http/http.h"

enum { TURNS_MAX = 20000, BODY_MAX = 3000 };

static char dir[] = "/tmp/wxlogind-fuzz-XXXXXX", path[64];
static struct loop *loop;
static struct http *http;
static unsigned seed;
static bool slowly;
static int open_requests;

static unsigned chance(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

/* ---- the handler: says what it was asked ---- */

static void answer(void *ctx)
{
	struct req *r = ctx;
	struct buf b = {0};
	size_t len;
	const char *body = req_body(r, &len), *header = req_header(r, "X");

	if (slowly && req_is_open(r) && chance(3)) {
		loop_defer(loop, answer, r);
		return;
	}
	MUST(len <= BODY_MAX && strlen(req_path(r)) > 0 && req_query(r));
	buf_printf(&b, "%s %s?%s x=%s body=", req_method_name(r), req_path(r), req_query(r),
		header ? header : "none");
	buf_add(&b, body, len);
	req_reply(r, 200 + (int)len % 2, "text/plain", b.data, b.len);
	buf_free(&b);
	open_requests--;
	req_release(r);
}

static void on_request(void *ctx, struct req *r)
{
	(void)ctx;
	open_requests++;
	req_hold(r);
	req_set_route(r, "fuzz");
	answer(r);
}

static void clean_up(void)
{
	http_free(http);
	loop_free(loop);
	rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char where[80], err[256];

	(void)argc;
	(void)argv;
	log_init((enum log_level)(LOG_ERROR + 1), LOG_LOGFMT);
	MUST(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(where, sizeof(where), "unix:%s", path);
	loop = loop_new();
	http = http_new(loop,
		&(struct http_options){.name = "public",
			.max_connections = 10,
			.client_timeout_ms = 60000,
			.max_body = BODY_MAX,
			.backstop_ms = 60000},
		on_request, NULL);
	MUST(http_listen(http, where, err, sizeof(err)));
	atexit(clean_up);
	return 0;
}

/* ---- the caller ---- */

static void turn(void)
{
	event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
}

/* true at the end. */
static bool take(int fd, struct buf *got)
{
	char piece[4096];
	ssize_t n = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);

	if (n > 0)
		buf_add(got, piece, (size_t)n);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

static void talk(struct input in, bool in_pieces, struct buf *got)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), turns = 0;
	bool over = false;

	strcpy(un.sun_path, path);
	MUST(connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0);
	slowly = in_pieces;
	while (in.n > 0 && !over) {
		size_t n = in_pieces ? 1 + chance(chance(2) ? 8 : 300) : in.n;
		ssize_t sent = send(fd, in.p, n < in.n ? n : in.n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0) {
			in.p += sent;
			in.n -= (size_t)sent;
		} else if (sent < 0 && errno != EAGAIN) {
			break; /* it has closed on us */
		}
		turn();
		over = take(fd, got);
		MUST(++turns < TURNS_MAX);
	}
	shutdown(fd, SHUT_WR);
	for (; !over; over = take(fd, got)) {
		turn();
		MUST(++turns < TURNS_MAX);
	}
	close(fd);
	while (http_connections(http) > 0 || open_requests > 0) {
		turn();
		MUST(++turns < TURNS_MAX);
	}
}

/* Takes the answers apart: leaves status lines and bodies, without what differs each time (ids,
 * dates, 100 Continue). */
static void essence(const struct buf *got, struct buf *out)
{
	const char *p = got->len ? got->data : "", *end = p + got->len;

	buf_str(out, "");
	while (p < end) {
		const char *head_end = memmem(p, (size_t)(end - p), "\r\n\r\n", 4), *length, *nl;
		size_t len = 0;

		MUST(head_end && !strncmp(p, "HTTP/1.1 ", 9));
		head_end += 4;
		length = memmem(p, (size_t)(head_end - p), "Content-Length: ", 16);
		if (length)
			len = strtoul(length + 16, NULL, 10);
		nl = memchr(p, '\r', (size_t)(head_end - p));
		if (strncmp(p, "HTTP/1.1 100", 12)) {
			buf_add(out, p, (size_t)(nl - p));
			if (len > (size_t)(end -
					   head_end)) { /* to a HEAD, or the connection's last */
				p = head_end;
				continue;
			}
			if (!strncmp(p, "HTTP/1.1 20", 11) && !strncmp(head_end, "HTTP/1.1 ", 9))
				len = 0; /* to a HEAD */
			if (!strncmp(p, "HTTP/1.1 20", 11))
				buf_add(out, head_end, len);
			buf_str(out, "\n");
		}
		p = head_end + len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct buf one = {0}, many = {0}, a = {0}, b = {0};

	seed = take_byte(&in) | take_byte(&in) << 8;
	talk(in, false, &one);
	talk(in, true, &many);
	essence(&one, &a);
	essence(&many, &b);
	if (a.len != b.len || memcmp(a.data, b.data, a.len))
		fprintf(stderr, "--- in one piece\n%s--- in many\n%s---\n", a.data, b.data);
	MUST(a.len == b.len && !memcmp(a.data, b.data, a.len));
	buf_free(&one);
	buf_free(&many);
	buf_free(&a);
	buf_free(&b);
	return 0;
}
