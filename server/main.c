/* wxlogind: arguments, --check, workers, exit status. One worker runs in this process; several are its children. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app.h"
#include "common/log.h"
#include "common/mem.h"

enum { RESTART_PAUSE_MS = 1000 };

static const char usage[] =
	"usage: wxlogind [-c FILE] [--check] [--version] [--help]\n"
	"  -c FILE     configuration (default " CONFIG_DEFAULT_FILE "; without the file, built-in defaults and environment)\n"
	"  --check     read the configuration and the secrets it names, say what is wrong, exit 0 or 1\n"
	"Exit status: 0 done, 1 bad configuration, 2 bad command line, 3 cannot listen, other: a fault.\n";

static void print_said(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	fprintf(stderr, "wxlogind: %s%s\n", is_error ? "" : "warning: ", text);
}

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/* ---- several workers ---- */

static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
	caught = signo;
}

static pid_t start_worker(const char *file, struct config *config, bool first)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* a worker without its parent would never be told to end */
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	exit(app_run(&(struct app_options){.config = config, .config_file = file, .reuse_port = true, .first = first}));
}

static void tell_all(const pid_t *pids, int64_t n, int signo)
{
	for (int64_t i = 0; i < n; i++)
		if (pids[i] > 0)
			kill(pids[i], signo);
}

/* A worker that fell is put up again after a pause; one that cannot listen ends all: a restart would not mend that. */
static int supervise(const char *file, struct config *config, int64_t n)
{
	struct sigaction sa = {.sa_handler = on_signal};
	pid_t *pids = mem_alloc(sizeof(*pids) * (size_t)n);
	int status, result = EXIT_DONE;
	int64_t alive = n;
	bool ending = false;

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	for (int64_t i = 0; i < n; i++)
		pids[i] = start_worker(file, config, i == 0);
	while (alive > 0) {
		pid_t pid = waitpid(-1, &status, 0);
		int signo = caught;
		int64_t i = 0;

		caught = 0;
		if (signo) {
			ending |= signo != SIGHUP;
			tell_all(pids, n, signo);
		}
		while (pid > 0 && i < n && pids[i] != pid)
			i++;
		if (pid <= 0 || i == n)
			continue;
		pids[i] = 0;
		if (ending || (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_LISTEN)) {
			if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_DONE)
				result = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAULT;
			if (!ending)
				tell_all(pids, n, SIGTERM);
			ending = true;
			alive--;
			continue;
		}
		log_error("a worker ended: starting another", LOG_INT("pid", pid), LOG_INT("status", status));
		nanosleep(&(struct timespec){.tv_sec = RESTART_PAUSE_MS / 1000}, NULL);
		pids[i] = start_worker(file, config, i == 0);
	}
	free(pids);
	config_free(config);
	return result;
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	struct config *config;
	bool check = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-c") && i + 1 < argc) {
			file = argv[++i];
		} else if (!strcmp(argv[i], "--check")) {
			check = true;
		} else if (!strcmp(argv[i], "--version")) {
			puts("wxlogind " VERSION);
			return EXIT_DONE;
		} else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(usage, stdout);
			return EXIT_DONE;
		} else {
			fprintf(stderr, "wxlogind: %s: not known, or without its value\n%s", argv[i], usage);
			return EXIT_USAGE;
		}
	}
	config = config_load(file, print_said, NULL);
	if (!config)
		return EXIT_CONFIG;
	if (check) {
		config_free(config);
		puts("wxlogind: the configuration is good");
		return EXIT_DONE;
	}
	raise_descriptor_limit();
	if (config->workers == 0)
		config->workers = sysconf(_SC_NPROCESSORS_ONLN);
	if (config->workers > 1)
		return supervise(file, config, config->workers);
	return app_run(&(struct app_options){.config = config, .config_file = file, .first = true});
}
