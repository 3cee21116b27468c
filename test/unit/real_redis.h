/* A redis-server of the test's own, on a unix socket in a directory of its own. */
#ifndef REAL_REDIS_H
#define REAL_REDIS_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct real_redis {
	char  dir[64];
	char  socket[96];
	pid_t pid;
};

/* cluster_port: of a node of a cluster, or NULL. */
static inline void real_redis_start_as(struct real_redis *rr, const char *cluster_port)
{
	snprintf(rr->dir, sizeof(rr->dir), "/tmp/wxlogind-test-XXXXXX");
	if (!mkdtemp(rr->dir))
		abort();
	snprintf(rr->socket, sizeof(rr->socket), "%s/redis.sock", rr->dir);
	rr->pid = fork();
	if (rr->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* an aborted test leaves nothing behind */
		if (freopen("/dev/null", "w", stdout))
			execlp("redis-server", "redis-server", "--port", "0", "--unixsocket",
				rr->socket, "--save", "", "--dir", rr->dir, "--cluster-enabled",
				cluster_port ? "yes" : "no", "--cluster-port",
				cluster_port ? cluster_port : "0", (char *)NULL);
		_exit(127);
	}
}

static inline void real_redis_start(struct real_redis *rr)
{
	real_redis_start_as(rr, NULL);
}

static inline void real_redis_stop(struct real_redis *rr)
{
	kill(rr->pid, SIGKILL);
	waitpid(rr->pid, NULL, 0);
	unlink(rr->socket);
	/* a node of a cluster */
	snprintf(rr->socket, sizeof(rr->socket), "%s/nodes.conf", rr->dir);
	unlink(rr->socket);
	rmdir(rr->dir);
}

#endif
