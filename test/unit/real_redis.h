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

static inline void real_redis_start(struct real_redis *rr)
{
	snprintf(rr->dir, sizeof(rr->dir), "/tmp/wxlogind-test-XXXXXX");
	if (!mkdtemp(rr->dir))
		abort();
	snprintf(rr->socket, sizeof(rr->socket), "%s/redis.sock", rr->dir);
	rr->pid = fork();
	if (rr->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* an aborted test leaves nothing behind */
		if (freopen("/dev/null", "w", stdout))
			execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", rr->socket, "--save", "", "--dir", rr->dir, (char *)NULL);
		_exit(127);
	}
}

static inline void real_redis_stop(struct real_redis *rr)
{
	kill(rr->pid, SIGKILL);
	waitpid(rr->pid, NULL, 0);
	unlink(rr->socket);
	rmdir(rr->dir);
}

#endif
