/* Listening sockets. */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

/* A descriptor that listens at addr: "host:port" (numeric host, or localhost), "[v6]:port", "unix:/path". -1 with the cause in err.
 * A stale unix socket is replaced. name is the listener's, for the log. */
int listen_open(const char *addr, const char *name, bool reuse_port, char *err, size_t err_len);

const char *listen_unix_path(const char *addr); /* NULL: not of a unix socket */

#endif
