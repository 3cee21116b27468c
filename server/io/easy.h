/* curl's easy handles, set for one HTTP request each. What an untrusting caller sets, once: see
 * easy.c. Only fetch.c includes it. */
#ifndef IO_EASY_H
#define IO_EASY_H

#include <stdbool.h>

#include <curl/curl.h>

#include "io/fetch.h"
#include "io/socks.h"

struct easies;
struct easy {
	CURL  *curl;
	CURLU *host;               /* NULL: nothing is set */
	struct socks_group *group; /* of the origin that it is set for */
	/* set for a GET, which may differ from the next one in nothing but the target */
	bool   is_plain;
	bool   opened;             /* a socket, for the request it is set for */
	void  *ctx;                /* the request's */
};

struct easy_request { /* what it points to outlives the handle's use */
	const char *method, *origin;    /* scheme://host:port */
	const char *target;             /* path and query: secret */
	const void *body;               /* NULL = none */
	size_t      body_len;
	struct curl_slist *headers;
	struct socks_group *group;
	bool        probe;              /* a new connection, and nobody else's after it */
	bool        look_up;            /* the name, again */
	void       *ctx;
};

/* on_body and on_sending: CURLOPT_WRITEFUNCTION and CURLOPT_PREREQFUNCTION. Their argument is the
 * struct easy; so is CURLOPT_PRIVATE. */
struct easies *easies_new(const struct fetch_options *o, struct socks *s,
	curl_write_callback on_body, curl_prereq_callback on_sending);
void easies_free(struct easies *es); /* after curl_multi_cleanup */

struct easy *easy_take(struct easies *es, const struct easy_request *rq, int64_t timeout_ms);
/* out of the multi handle; its secrets are forgotten */
void easy_give(struct easies *es, struct easy *e);
void easy_connected(struct easies *es, struct easy *e); /* its request is about to be sent */

/* Words for the log. Never curl's error buffer, which may quote the URL. */
void easy_describe(CURL *e, CURLcode code, bool sent, char *out, size_t size);

#endif
