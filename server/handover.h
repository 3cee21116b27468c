/* Listening sockets that go from one process to the next: from systemd (socket activation), or from
 * a server to the one that takes its place (SIGUSR2). Both by the protocol of sd_listen_fds(3):
 * descriptors from 3 on, LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES. A name is "public" or "internal";
 * "/file" behind it says that a unix socket's file goes with it. */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "http/listen.h"

struct handed {
	bool any;       /* descriptors came */
	int  ready_fd;  /* of the server before us: waits to be told that we serve; -1 = none */
};

/* Takes what came, and forgets the variables. sockets[0]: public, [1]: internal; allocated. false:
 * a name is not known, in err. */
bool handover_take(struct handed *h, struct listen_socket *sockets[2], size_t counts[2], char *err,
	size_t err_len);
void handover_ready(struct handed *h); /* the one before us can go */

struct successor {
	pid_t   pid;    /* 0: none */
	int     ready_fd;
	int64_t deadline_ms;
};

enum successor_state { SUCCESSOR_NONE, SUCCESSOR_STARTS, SUCCESSOR_READY, SUCCESSOR_FAILED };

/* Starts the program file anew, with the sockets. */
bool successor_start(struct successor *s, char *const *argv, struct listen_socket *const sockets[2],
	const size_t counts[2]);
/* FAILED: it ended, or was not ready within 30 s and was killed. READY and FAILED are said once. */
enum successor_state successor_look(struct successor *s);

#endif
