/* Messages to a company's own backend, push_forward: what WeChat pushed, and who was erased. */
#ifndef API_FORWARD_H
#define API_FORWARD_H

#include "api/api.h"
#include "io/fetch.h"

struct forward {
	const char *appid;
	const char *openid;      /* X-Wx-Openid; NULL: about no user */
	const char *content_type;
	const char *traceparent; /* NULL: none */
	const char *body;
	size_t      len;
	int64_t     timeout_ms;
};

/* POSTs f to push_forward. All is copied; cb as of fetch_start. */
void forward_send(struct api *api, const struct api_push *to, const struct forward *f, fetch_cb cb,
	void *ctx);
bool forward_ok(const struct fetch_reply *rp); /* a 2xx */

/* The user closed the account at wxlogind: tells push_forward, where there is one, by the event
 * wxlogind_user_erased in the shape of WeChat's. It is tried three times; nobody waits for it. */
void push_tell_erased(struct api *api, const char *appid, const char *openid);
/* Before redis_free: what waits for another process looks once more. */
void push_close(struct api *api);
void forward_close(struct api *api); /* before push_fetch is freed: nothing is tried again */

#endif
