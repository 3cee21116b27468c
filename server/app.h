/* One worker: builds the rooms bottom-up, runs the loop, ends them top-down. */
#ifndef APP_H
#define APP_H

#include <stdbool.h>

#include "config/config.h"
#include "io/loop.h"

enum { EXIT_DONE = 0, EXIT_CONFIG = 1, EXIT_USAGE = 2, EXIT_LISTEN = 3, EXIT_FAULT = 4 };

/* What the workers have in common, in memory that they share: limits hold for all of them together,
 * metrics are those of all. */
struct app_shared;
struct app_shared *app_share(int workers);       /* before they fork */
void app_worker_gone(struct app_shared *s, int worker); /* by their parent */
void app_unshare(struct app_shared *s);          /* NULL is fine */

struct listen_socket;

/* What the worker tells its supervisor, and asks of it. All are called on the loop's thread. */
struct app_crew {
	void *ctx;
	void (*up)(void *ctx, struct loop *l); /* it serves */
	void (*ready)(void *ctx);              /* and now Redis answers, for the first time */
	/* it accepts no more: the descriptors of sockets can be closed */
	void (*stop_listening)(void *ctx);
	/* the loop is about to go; NULL = it has nothing there */
	void (*down)(void *ctx);
	/* SIGHUP: a configuration to apply, taken over, or NULL when there is none. Sets refused
	 * where the file was not good: that was said. */
	struct config *(*reload)(void *ctx, bool *refused);
};

struct app_options {
	struct config *started; /* taken over. Keys that need a restart count as they are here, */
	struct config *config;  /* taken over. and the others as they are here; may be the same */
	struct app_shared *shared;
	int worker, workers;    /* which of how many */
	const struct listen_socket *sockets[2]; /* public, internal */
	size_t socket_count[2];
	const struct app_crew *crew;
	bool accept_when_ready; /* another process serves until then */
	/* signals may come twice: from the supervisor, and to the whole process group */
	bool supervised;
};

/* Holds back the signals that app_run takes while it runs. */
void app_hold_signals(void);

/* What a supervisor says to its workers by signals of their own. */
#define APP_SIGNAL_END   SIGRTMIN       /* end at once */
#define APP_SIGNAL_DRAIN (SIGRTMIN + 1) /* drain, without drain_delay */

/* signals to end that come this soon after the first are the first: timeout(1) sends several */
enum { APP_SAME_SIGNAL_MS = 1000 };

/* Runs until it has drained: after SIGTERM, SIGINT or SIGQUIT. An EXIT_ status. */
int app_run(const struct app_options *o);

#endif
