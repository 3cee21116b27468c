/* The supervisor. With one worker, that is this process; several are its children, and one that dies is started again. */
#include "crew.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum { RESTART_PAUSE_MS = 1000 };

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

struct worker {
	pid_t   pid;        /* 0: none runs */
	int64_t restart_ms; /* when the next is due; -1: not at all */
};

struct crew {
	const char    *file;
	struct config *config;
	struct app_shared *shared;
	struct worker *workers;
	int            n, alive;
	bool           reloaded, ending;
	int            result;
};

static int exit_status(int wait_status)
{
	return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : EXIT_FAULT;
}

static void start_worker(struct crew *c, struct worker *w)
{
	pid_t parent = getpid();

	w->pid = fork();
	if (w->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM); /* a worker without its parent would never be told to end */
		if (getppid() != parent)
			exit(EXIT_FAULT);
		exit(app_run(&(struct app_options){
			.config = c->config, .config_file = c->file, .shared = c->shared, .worker = (int)(w - c->workers), .workers = c->n}));
	}
	if (w->pid > 0) {
		w->restart_ms = -1;
		c->alive++;
		if (c->reloaded)
			kill(w->pid, SIGHUP); /* it begins with what we read at the start: let it catch up with the others */
		return;
	}
	log_error("fork failed", LOG_STR("cause", strerror(errno)));
	w->pid = 0;
	w->restart_ms = clock_ms() + RESTART_PAUSE_MS;
}

static void start_due(struct crew *c)
{
	for (struct worker *w = c->workers; w < c->workers + c->n && !c->ending; w++)
		if (w->restart_ms >= 0 && w->restart_ms <= clock_ms())
			start_worker(c, w);
}

static void tell_all(const struct crew *c, int signo)
{
	for (int i = 0; i < c->n; i++)
		if (c->workers[i].pid)
			kill(c->workers[i].pid, signo);
}

/* A worker that fell is put up again after a pause; one that cannot listen or open its database ends all: a restart would not mend that. */
static void worker_gone(struct crew *c, struct worker *w, int wait_status)
{
	int status = exit_status(wait_status);

	app_worker_gone(c->shared, (int)(w - c->workers));
	if (c->ending || status == EXIT_LISTEN || status == EXIT_CONFIG) {
		c->result = c->result == EXIT_DONE ? status : c->result;
		if (!c->ending)
			tell_all(c, SIGTERM);
		c->ending = true;
	} else {
		log_error("a worker ended: starting another", LOG_INT("pid", w->pid), LOG_INT("status", wait_status));
		w->restart_ms = clock_ms() + RESTART_PAUSE_MS;
	}
	w->pid = 0;
	c->alive--;
}

static void reap(struct crew *c)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < c->n; i++) /* none: an orphan given to us as process 1 of a container */
			if (c->workers[i].pid == pid)
				worker_gone(c, &c->workers[i], status);
}

/* Signals are taken by sigtimedwait alone, so none is lost between two looks. */
static int supervise(const char *file, struct config *config, int workers, struct app_shared *shared)
{
	const struct timespec look = {.tv_nsec = 100 * 1000000};
	struct crew c = {.file = file, .config = config, .shared = shared, .n = workers, .result = EXIT_DONE};
	sigset_t signals;
	int signo;

	c.workers = mem_alloc(sizeof(*c.workers) * (size_t)c.n);
	sigprocmask(SIG_BLOCK, NULL, &signals);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	while (c.alive > 0 || !c.ending) {
		start_due(&c);
		signo = sigtimedwait(&signals, NULL, &look);
		reap(&c);
		if (signo > 0 && signo != SIGCHLD)
			tell_all(&c, signo);
		c.reloaded |= signo == SIGHUP;
		c.ending |= signo == SIGTERM || signo == SIGINT;
	}
	free(c.workers);
	config_free(config);
	return c.result;
}

void crew_hold_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
}

int crew_run(const char *file, struct config *config)
{
	struct app_shared *shared;
	int status, workers;

	raise_descriptor_limit();
	workers = (int)(config->workers ? config->workers : sysconf(_SC_NPROCESSORS_ONLN));
	shared = app_share(workers);
	if (workers > 1)
		status = supervise(file, config, workers, shared);
	else
		status = app_run(&(struct app_options){.config = config, .config_file = file, .shared = shared, .workers = 1});
	app_unshare(shared);
	return status;
}
