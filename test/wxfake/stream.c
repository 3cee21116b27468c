/* A request that streams is closed for other answers, and keeps its gate. No real server needs
 * this, so it reaches into http's room. */
#include "stream.h"

#include <sys/socket.h>

#include "http/private.h"

enum { UNSENT_MAX = 1024 * 1024 };

void req_stream_start(struct req *r, const void *head, size_t len)
{
	if (!r->open)
		return;
	req_account(r, 200);
	r->open = false;
	gate_write(r->gate, head, len);
}

bool req_stream_write(struct req *r, const void *p, size_t len)
{
	if (r->open || !r->gate || gate_unsent(r->gate) > UNSENT_MAX)
		return false;
	gate_write(r->gate, p, len);
	return true;
}

void req_stream_end(struct req *r)
{
	struct gate *g = r->gate;

	if (r->open || !g)
		return;
	req_close(r);
	gate_answered(g, true);
	req_release(r);
}

void req_stream_reset(struct req *r)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	struct gate *g = r->gate;

	if (!g)
		return;
	if (r->open)
		req_account(r, 499);
	req_close(r);
	setsockopt(
		bufferevent_getfd(g->conn->bev), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	g->req = NULL;
	bufferevent_trigger_event(g->conn->bev, BEV_EVENT_ERROR, BEV_TRIG_DEFER_CALLBACKS);
	req_release(r);
}
