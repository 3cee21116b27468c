/* Names to addresses without stopping the loop: getaddrinfo on a thread of its own, which honours
 * everything the machine's administrator set up (hosts file, search domains, nsswitch). */
#ifndef IO_RESOLVE_H
#define IO_RESOLVE_H

#include <netdb.h>

#include "io/loop.h"

struct resolve;

/* list is borrowed; NULL when there is no address, and then error says why. */
typedef void (*resolve_cb)(void *ctx, const struct addrinfo *list, const char *error);

/* The callback comes once, never before this returns; with it, or with resolve_cancel, the handle
 * is gone. */
struct resolve *resolve_start(struct loop *l, const char *host, int port, resolve_cb cb, void *ctx);
void resolve_cancel(struct resolve *q); /* no callback; the thread ends by itself. NULL is fine */

/* NULL when host is a name; freeaddrinfo() it */
struct addrinfo *resolve_numeric(const char *host, int port);

#endif
