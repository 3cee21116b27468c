/* curl's sockets on the loop. A connection that curl made is watched for as long as it is open,
 * also while it is idle: when an idle one stirs, or has been idle for SOCKS_IDLE_MS, it is retired,
 * and curl will not use it again.
 *
 * A server that closes an idle TLS connection sends close_notify, then FIN. curl before 8.1 takes
 * the unread close_notify for a sign of life, sends the next request on that connection, and the
 * request has no answer. */
#ifndef IO_SOCKS_H
#define IO_SOCKS_H

#include <curl/curl.h>

#include "io/loop.h"

/* WeChat is said to close after 20 s. curl's own limit, a second more, is there should ours come
 * late */
enum { SOCKS_IDLE_MS = 14000 };

struct socks;
struct socks_group { /* connections that may stand for one another: those to one origin */
	struct socks *socks;
	int           idle;  /* how many of them curl may use at once */
};
/* for curl_multi_socket_action */
typedef void (*socks_ready_fn)(void *ctx, curl_socket_t fd, int curl_events);

struct socks *socks_new(struct loop *l, socks_ready_fn ready, void *ctx);
void socks_free(struct socks *s); /* after curl_multi_cleanup */

/* Bodies of curl's callbacks. The group lives until its last socket is closed. opener: any name for
 * who needs the connection. */
curl_socket_t socks_open(struct socks_group *g, const struct curl_sockaddr *a, const void *opener);
int  socks_close(struct socks *s, curl_socket_t fd);
/* CURL_POLL_IN, ..., CURL_POLL_REMOVE */
void socks_watch(struct socks *s, curl_socket_t fd, int curl_poll);

/* what it opened is a connection now, and may count as idle later */
void socks_made(struct socks *s, const void *opener);

#endif
