/* One worker: builds the rooms bottom-up, runs the loop, ends them top-down. */
#ifndef APP_H
#define APP_H

#include <stdbool.h>

#include "config.h"

enum { EXIT_DONE = 0, EXIT_CONFIG = 1, EXIT_USAGE = 2, EXIT_LISTEN = 3, EXIT_FAULT = 4 };

struct app_options {
	struct config *config;   /* taken over: freed at the end */
	const char *config_file; /* read again on SIGHUP; NULL = the default */
	bool reuse_port;         /* several workers share the ports */
	bool first;              /* binds the unix sockets, which cannot be shared */
};

/* Runs until SIGTERM or SIGINT has drained it. An EXIT_ status. */
int app_run(const struct app_options *o);

#endif
