/* Listening sockets. */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct listen_options {
	int         unix_mode;  /* of unix sockets */
	const char *unix_group; /* a name or a number; NULL or "" = the process's own */
};

struct listen_socket {
	int   fd;        /* -1: closed */
	char *unix_path; /* the file that we made; NULL = none */
	dev_t dev;
	ino_t ino;
};

/* Listens at addr: "host:port" (numeric host, or localhost), "[v6]:port", "unix:/path". false with
 * the cause in err. A stale unix socket is replaced. */
bool listen_open(struct listen_socket *s, const char *addr, const struct listen_options *o,
	char *err, size_t err_len);
/* one that listens already; with_file: its unix socket's file is ours too */
void listen_adopt(struct listen_socket *s, int fd, bool with_file);
void listen_close(struct listen_socket *s); /* the descriptor; the file stays */
/* Closes it, and removes the file unless another process has put its own in its place. keep_file:
 * another process listens there. */
void listen_end(struct listen_socket *s, bool keep_file);

bool listen_is_local(int fd); /* only this machine can reach it */
/* the address as it is written in the configuration */
void listen_name(int fd, char *text, size_t n);

#endif
