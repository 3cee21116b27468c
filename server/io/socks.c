/* Only what socks_open opened is watched while idle: curl closes the sockets of its resolver
 * without a word, and a watch left on such a number would make the next owner of it deaf. */
#include "io/socks.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "common/clock.h"
#include "common/mem.h"

enum { SWEEP_EVERY_MS = 1000, FIRST_CAP = 64 };

struct sock {
	struct event ev;
	struct socks *s;
	curl_socket_t fd;
	short   armed;      /* what the loop watches */
	short   wanted;     /* what curl waits for; 0: nothing */
	struct socks_group *group; /* NULL: curl's own, not opened here */
	const void *opener; /* NULL once the connection is made */
	bool    is_idle;    /* counted in the group */
	int64_t idle_since_ms;
};

struct socks {
	struct loop   *loop;
	socks_ready_fn ready;
	void          *ctx;
	struct sock  **at;  /* by descriptor */
	size_t         cap;
	struct timer  *sweep;
	bool           sweeping;
};

static void disarm(struct sock *k)
{
	if (k->armed)
		event_del(&k->ev);
	k->armed = 0;
}

static void set_idle(struct sock *k, bool idle)
{
	if (!k->group || k->opener || k->is_idle == idle)
		return;
	k->is_idle = idle;
	k->group->idle += idle ? 1 : -1;
	k->idle_since_ms = clock_ms();
	if (!idle || k->s->sweeping)
		return;
	k->s->sweeping = true;
	timer_start(k->s->sweep, SWEEP_EVERY_MS);
}

/* curl looks at a connection before it uses it again. Read empty and shut down, this one is seen to
 * be dead. */
static void retire(struct sock *k)
{
	char bytes[256];

	disarm(k);
	set_idle(k, false);
	while (recv(k->fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	shutdown(k->fd, SHUT_RDWR);
}

static void on_sweep(void *ctx)
{
	struct socks *s = ctx;
	int64_t now = clock_ms();

	s->sweeping = false;
	for (size_t i = 0; i < s->cap; i++) {
		if (!s->at[i] || !s->at[i]->is_idle)
			continue;
		if (now - s->at[i]->idle_since_ms >= SOCKS_IDLE_MS)
			retire(s->at[i]);
		else
			s->sweeping = true;
	}
	if (s->sweeping)
		timer_start(s->sweep, SWEEP_EVERY_MS);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct sock *k = arg;

	if (k->wanted)
		k->s->ready(k->s->ctx, fd,
			(what & EV_READ ? CURL_CSELECT_IN : 0) |
				(what & EV_WRITE ? CURL_CSELECT_OUT : 0));
	else
		retire(k);
}

static struct sock *sock_at(struct socks *s, curl_socket_t fd)
{
	size_t cap = s->cap ? s->cap : FIRST_CAP;

	while (cap <= (size_t)fd)
		cap *= 2;
	if (cap > s->cap) {
		s->at = mem_realloc(s->at, cap * sizeof(*s->at));
		memset(s->at + s->cap, 0, (cap - s->cap) * sizeof(*s->at));
		s->cap = cap;
	}
	if (!s->at[fd]) {
		s->at[fd] = mem_alloc(sizeof(struct sock));
		s->at[fd]->s = s;
		s->at[fd]->fd = fd;
	}
	return s->at[fd];
}

static void forget(struct sock *k)
{
	disarm(k);
	set_idle(k, false);
	k->s->at[k->fd] = NULL;
	free(k);
}

curl_socket_t socks_open(struct socks_group *g, const struct curl_sockaddr *a, const void *opener)
{
	curl_socket_t fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
	struct sock *k;

	if (fd < 0)
		return fd;
	k = sock_at(g->socks, fd);
	k->group = g;
	k->opener = opener;
	return fd;
}

void socks_made(struct socks *s, const void *opener)
{
	for (size_t fd = 0; fd < s->cap; fd++)
		if (s->at[fd] && s->at[fd]->opener == opener)
			s->at[fd]->opener = NULL;
}

int socks_close(struct socks *s, curl_socket_t fd)
{
	forget(sock_at(s, fd));
	return close(fd);
}

void socks_watch(struct socks *s, curl_socket_t fd, int curl_poll)
{
	struct sock *k = sock_at(s, fd);
	short wanted = 0;

	if (curl_poll != CURL_POLL_REMOVE)
		wanted = (short)((curl_poll & CURL_POLL_IN ? EV_READ : 0) |
				 (curl_poll & CURL_POLL_OUT ? EV_WRITE : 0));
	if (!wanted && !k->group) {
		forget(k);
		return;
	}
	k->wanted = wanted;
	set_idle(k, !wanted);
	if (!wanted)
		/* watched for its end; never for writing, which it would always be ready for */
		wanted = EV_READ;
	if (k->armed == wanted)
		return;
	disarm(k);
	k->armed = wanted;
	event_assign(&k->ev, loop_base(s->loop), fd, (short)(wanted | EV_PERSIST), on_event, k);
	event_add(&k->ev, NULL);
}

struct socks *socks_new(struct loop *l, socks_ready_fn ready, void *ctx)
{
	struct socks *s = mem_alloc(sizeof(*s));

	*s = (struct socks){.loop = l, .ready = ready, .ctx = ctx};
	s->sweep = timer_new(l, on_sweep, s);
	return s;
}

void socks_free(struct socks *s)
{
	for (size_t fd = 0; fd < s->cap; fd++)
		if (s->at[fd])
			forget(s->at[fd]);
	timer_free(s->sweep);
	free(s->at);
	free(s);
}
