/* One worker: builds the rooms bottom-up, runs the loop, ends them top-down. */
#ifndef APP_H
#define APP_H

#include <stdbool.h>

#include "config/config.h"

enum { EXIT_DONE = 0, EXIT_CONFIG = 1, EXIT_USAGE = 2, EXIT_LISTEN = 3, EXIT_FAULT = 4 };

/* What the workers have in common, in memory that they share: limits hold for all of them together, metrics are those of all. */
struct app_shared;
struct app_shared *app_share(int workers);       /* before they fork */
void app_worker_gone(struct app_shared *s, int worker); /* by their parent */
void app_unshare(struct app_shared *s);          /* NULL is fine */

struct app_options {
	struct config *config;   /* taken over: freed at the end */
	const char *config_file; /* read again on SIGHUP; NULL = the default */
	struct app_shared *shared;
	int worker, workers;     /* which of how many: several share the ports, the first binds the unix sockets, which cannot be shared */
};

/* Runs until SIGTERM or SIGINT has drained it. An EXIT_ status. */
int app_run(const struct app_options *o);

#endif
