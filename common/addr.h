/* Addresses of sockets: the one reader of "host:port" with a numeric host or localhost, "[v6]:port"
 * and "unix:/path". */
#ifndef COMMON_ADDR_H
#define COMMON_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
	socklen_t len;
};

#define ADDR_TEXT_MAX 128 /* with the NUL; the longest is a unix path */
#define ADDR_SHAPE    "host:port with a numeric host, [v6]:port or unix:/path" /* for messages */

bool addr_parse(struct addr *a, const char *text);
bool addr_is_unix(const struct addr *a);
/* loopback or a unix socket: only this machine gets there */
bool addr_is_local(const struct addr *a);
int  addr_port(const struct addr *a);     /* 0: any, or a unix socket */
/* One socket cannot listen on a while another listens on b. */
bool addr_clashes(const struct addr *a, const struct addr *b);
void addr_print(char out[ADDR_TEXT_MAX], const struct addr *a);

#endif
