/* The supervisor. It owns what outlives a worker: the last good configuration, the listening
 * sockets, and the rules of signals. With one worker it is that worker's process. With several they
 * are its children: all accept from the same sockets, and one that dies is started again. */
#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
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
#include "common/notify.h"
#include "published.h"
#include "sockets.h"

enum { PAUSE_MS = 1000, PAUSE_MAX_MS = 8000, LOOK_MS = 100, KILL_GRACE_MS = 5000 };

struct worker {
	pid_t   pid;        /* 0: none runs */
	int64_t restart_ms; /* when the next is due; -1: not at all */
	int64_t pause_ms;   /* before the one after it */
};

/* Of each worker, in memory that it shares with the supervisor. */
struct shared {
	_Atomic bool is_up, is_ready; /* it serves; and Redis answers */
};

struct crew {
	const char    *file;
	/* the configuration of the start: what needs a restart is in force as it says */
	struct config *started;
	struct config *good;        /* the last that was good; may be the same */
	struct app_shared *app_shared;
	struct sockets sockets;
	struct worker *workers;
	int            n, alive;
	struct shared *shared;       /* of n */
	struct published *published; /* what the last good configuration was read from */
	int            mine;         /* a worker's: which it is */
	struct timer  *look;         /* of the only worker's loop */
	struct successor successor;
	char *const   *argv;
	int64_t        watchdog_ms, watchdog_due_ms;
	bool           complete;     /* all workers served at once, at one time */
	bool           handed_over;  /* the successor has the sockets and their files */
	bool           ending;
	int64_t        ending_since_ms;
	int            result;
};

/* ---- what a process needs before anything else ---- */

static void open_standard_descriptors(void)
{
	/* a socket that came to be one of them would be written to */
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			abort();
}

void crew_prepare(void)
{
	open_standard_descriptors();
	app_hold_signals();
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_DFL);
	/* a reader that left is an error of write(2), not a reason to die */
	signal(SIGPIPE, SIG_IGN);
	/* no core file, and no other process of this user, sees secrets */
	prctl(PR_SET_DUMPABLE, 0);
}

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/* ---- the last good configuration ---- */

static void on_said(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	if (is_error)
		log_error("configuration", LOG_STR("problem", text));
	else
		log_warn("configuration", LOG_STR("note", text));
}

static void on_said_before(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	(void)is_error;
	(void)text;
}

/* The file is right in itself; but an address waits for a restart, and the token does not. */
static bool fits_what_is_open(const struct crew *c, const struct config *new)
{
	if (*new->internal_token || c->sockets.internal_is_local)
		return true;
	log_error("configuration", LOG_STR("problem", "[server] internal_token is gone, and the "
						      "internal_listen in force is open to others "
						      "than this machine: that needs a restart"));
	return false;
}

/* What the file says now, or NULL: it is not good. */
static struct config *read_file(const struct crew *c, struct config_files *files)
{
	struct config *new;
	const char *changed[64];
	char state[64];
	size_t n;

	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_us());
	notify_send(state);
	new = config_read(c->file, files, on_said, NULL);
	notify_send("READY=1");
	if (!new || !fits_what_is_open(c, new)) {
		log_error("reload failed: the old configuration stays in force");
		config_free(new);
		return NULL;
	}
	n = config_changed(c->started, new, changed, NELEM(changed));
	for (size_t i = 0; i < n; i++)
		log_warn("a changed setting needs a restart", LOG_STR("key", changed[i]));
	return new;
}

/* The only worker reads the file itself. */
static struct config *reload_alone(void *ctx, bool *refused)
{
	struct config *new = read_file(ctx, NULL);

	*refused = !new;
	return new;
}

/* Workers never read the files: they might have changed once more by then, and each would run
 * something else. They read what the supervisor read. */
static struct config *reload_worker(void *ctx, bool *refused)
{
	struct crew *c = ctx;
	struct config_files files = {.replay = true};
	struct config *new;

	if (!published_get(c->published, &files.bytes, refused))
		/* a signal to the process group, of which the supervisor has not spoken yet */
		return NULL;
	new = config_read(c->file, &files, on_said_before, NULL);
	buf_free(&files.bytes);
	if (!new)
		log_error("a worker cannot read the supervisor's configuration");
	return new;
}

static void tell_all(const struct crew *c, int signo)
{
	for (int i = 0; i < c->n; i++)
		if (c->workers[i].pid)
			kill(c->workers[i].pid, signo);
}

static void reload_all(struct crew *c)
{
	struct config_files files = {.replay = false};
	struct config *new = read_file(c, &files);

	if (new && !published_put(c->published, &files.bytes)) {
		log_error("reload failed: out of memory",
			LOG_STR("cause", strerror(errno)));
		config_free(new);
		new = NULL;
	}
	if (new) {
		if (c->good != c->started)
			config_free(c->good);
		c->good = new;
		log_set_level(new->log_level);
	} else {
		published_refuse(c->published);
	}
	buf_free(&files.bytes);
	tell_all(c, SIGHUP); /* even so: files are opened anew */
}

/* ---- workers ---- */

static void worker_is_up(void *ctx, struct loop *l)
{
	struct crew *c = ctx;

	(void)l;
	c->shared[c->mine].is_up = true;
}

static void worker_is_ready(void *ctx)
{
	struct crew *c = ctx;

	c->shared[c->mine].is_ready = true;
}

static void worker_stops_listening(void *ctx)
{
	struct crew *c = ctx;

	sockets_close(&c->sockets);
}

static void run_worker(struct crew *c, int i)
{
	const struct app_crew told = {.ctx = c,
		.up = worker_is_up,
		.ready = worker_is_ready,
		.stop_listening = worker_stops_listening,
		.reload = reload_worker};

	c->mine = i;
	signal(SIGUSR2, SIG_IGN);
	if (c->sockets.handed.ready_fd >= 0)
		close(c->sockets.handed.ready_fd); /* the supervisor's to use */
	published_join(c->published);
	exit(app_run(&(struct app_options){.started = c->started,
		.config = c->good,
		.shared = c->app_shared,
		.worker = i,
		.workers = c->n,
		.sockets = {c->sockets.side[0], c->sockets.side[1]},
		.socket_count = {c->sockets.count[0], c->sockets.count[1]},
		.crew = &told,
		.accept_when_ready = c->sockets.handed.ready_fd >= 0,
		.supervised = true}));
}

static void start_worker(struct crew *c, struct worker *w)
{
	pid_t parent = getpid();

	w->pid = fork();
	if (w->pid == 0) {
		/* a worker without its parent would never be told to end */
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			exit(EXIT_FAULT);
		run_worker(c, (int)(w - c->workers));
	}
	if (w->pid > 0) {
		w->restart_ms = -1;
		c->alive++;
		return;
	}
	log_error("fork failed", LOG_STR("cause", strerror(errno)));
	w->pid = 0;
	w->restart_ms = clock_ms() + PAUSE_MS;
}

static void start_due(struct crew *c)
{
	for (struct worker *w = c->workers; w < c->workers + c->n && !c->ending; w++)
		if (w->restart_ms >= 0 && w->restart_ms <= clock_ms())
			start_worker(c, w);
}

static int exit_status(int wait_status)
{
	return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : EXIT_FAULT;
}

static void see_who_is_up(struct crew *c)
{
	int up = 0, ready = 0;

	for (int i = 0; i < c->n; i++) {
		up += c->shared[i].is_up;
		ready += c->shared[i].is_ready;
	}
	if (up == c->n && !c->complete) {
		c->complete = true;
		notify_send("READY=1");
	}
	if (ready == c->n)
		handover_ready(&c->sockets.handed);
}

static void begin_end(struct crew *c)
{
	if (!c->handed_over)
		notify_send("STOPPING=1");
	c->ending = true;
	c->ending_since_ms = clock_ms();
	sockets_close(&c->sockets); /* the workers have theirs, and say how long */
}

/* A worker that cannot start at all ends the service: a restart would not mend that. Once the crew
 * was complete it is a fault of the moment (the database's file moved, its password changed), and
 * the others go on. */
static void worker_gone(struct crew *c, struct worker *w, int wait_status)
{
	int i = (int)(w - c->workers), status = exit_status(wait_status);

	app_worker_gone(c->app_shared, i);
	see_who_is_up(c); /* the dead one was, perhaps */
	if (c->ending || (!c->complete && (status == EXIT_LISTEN || status == EXIT_CONFIG))) {
		c->result = c->result == EXIT_DONE ? status : c->result;
		if (!c->ending) {
			begin_end(c);
			tell_all(c, SIGTERM);
		}
	} else {
		w->pause_ms = c->shared[i].is_up || !w->pause_ms ? PAUSE_MS
			      : w->pause_ms * 2 < PAUSE_MAX_MS   ? w->pause_ms * 2
								 : PAUSE_MAX_MS;
		w->restart_ms = clock_ms() + w->pause_ms;
		log_error("a worker ended: starting another", LOG_INT("pid", w->pid),
			LOG_INT("status", status),
			LOG_INT("signal", WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0),
			LOG_INT("pause_ms", w->pause_ms));
	}
	c->shared[i].is_up = c->shared[i].is_ready = false;
	w->pid = 0;
	c->alive--;
}

static void reap(struct crew *c)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		/* none: an orphan given to us as process 1 of a container */
		for (int i = 0; i < c->n; i++)
			if (c->workers[i].pid == pid)
				worker_gone(c, &c->workers[i], status);
}

/* ---- the next program ---- */

static void upgrade(struct crew *c)
{
	if (getpid() == 1)
		log_error("SIGUSR2 is refused: this is process 1, and its end would end the new "
			  "process too");
	else if (c->ending || c->successor.pid)
		log_warn("SIGUSR2 is refused: the server is ending, or is being replaced");
	else if (successor_start(&c->successor, c->argv, c->sockets.side, c->sockets.count))
		log_info("starting the program anew", LOG_INT("pid", c->successor.pid));
	else
		log_error("cannot start the new process", LOG_STR("cause", strerror(errno)));
}

/* true, once: the successor serves, and this process can go. */
static bool is_replaced(struct crew *c)
{
	enum successor_state st = successor_look(&c->successor);
	char state[64];

	if (st == SUCCESSOR_FAILED)
		log_error(
			"the new process ended, or was not ready within 30 s: the old one goes on");
	if (st != SUCCESSOR_READY)
		return false;
	log_info("the next process serves: this one drains", LOG_INT("pid", c->successor.pid));
	/* systemd took no sign of life from it so far: its time begins now */
	snprintf(state, sizeof(state), "MAINPID=%d\nREADY=1\nWATCHDOG=1", (int)c->successor.pid);
	notify_send(state);
	c->successor.pid = 0;
	return c->handed_over = true;
}

static void feed_watchdog(struct crew *c)
{
	if (!c->watchdog_ms || clock_ms() < c->watchdog_due_ms || c->handed_over)
		return;
	notify_send("WATCHDOG=1");
	c->watchdog_due_ms = clock_ms() + c->watchdog_ms;
}

static void look_at_all(struct crew *c)
{
	see_who_is_up(c);
	feed_watchdog(c);
	if (is_replaced(c)) {
		begin_end(c);
		tell_all(c, APP_SIGNAL_DRAIN);
	}
	if (c->ending && clock_ms() - c->ending_since_ms > c->good->drain_delay_ms +
								   c->good->drain_timeout_ms +
								   KILL_GRACE_MS)
		tell_all(c, SIGKILL); /* it hangs */
}

static void on_signal(struct crew *c, int signo)
{
	switch (signo) {
	case SIGHUP:
		reload_all(c);
		break;
	case SIGUSR2:
		upgrade(c);
		break;
	case SIGTERM:
	case SIGINT:
	case SIGQUIT:
		if (!c->ending) {
			begin_end(c);
			tell_all(c, SIGTERM);
		} else if (clock_ms() - c->ending_since_ms >= APP_SAME_SIGNAL_MS) {
			tell_all(c, APP_SIGNAL_END);
		}
		break;
	default:
		break;
	}
}

static bool share(struct crew *c)
{
	c->workers = mem_alloc(sizeof(*c->workers) * (size_t)c->n);
	c->shared = mem_shared(sizeof(*c->shared) * (size_t)c->n);
	c->published = published_new();
	if (!c->published)
		log_error("cannot allocate the memory that the workers share",
			LOG_STR("cause", strerror(errno)));
	return c->published != NULL;
}

/* Signals are taken by sigtimedwait alone, so none is lost between two looks. */
static int supervise(struct crew *c)
{
	const struct timespec look = {.tv_nsec = LOOK_MS * 1000000};
	sigset_t signals;

	if (!share(c))
		return EXIT_FAULT;
	sigprocmask(SIG_BLOCK, NULL, &signals);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	while (c->alive > 0 || !c->ending) {
		start_due(c);
		on_signal(c, sigtimedwait(&signals, NULL, &look));
		reap(c);
		look_at_all(c);
	}
	free(c->workers);
	mem_shared_free(c->shared, sizeof(*c->shared) * (size_t)c->n);
	published_free(c->published);
	if (c->good != c->started)
		config_free(c->good);
	config_free(c->started);
	return c->result;
}

/* ---- one worker: this process ---- */

static void alone_look(void *ctx)
{
	struct crew *c = ctx;

	feed_watchdog(c);
	if (is_replaced(c))
		raise(APP_SIGNAL_DRAIN);
	timer_start(c->look, LOOK_MS);
}

static void on_upgrade(void *ctx, int signo)
{
	(void)signo;
	upgrade(ctx);
}

static void alone_is_up(void *ctx, struct loop *l)
{
	struct crew *c = ctx;

	notify_send("READY=1");
	loop_on_signal(l, SIGUSR2, on_upgrade, c);
	c->look = timer_new(l, alone_look, c);
	timer_start(c->look, 0);
}

static void alone_is_ready(void *ctx)
{
	struct crew *c = ctx;

	handover_ready(&c->sockets.handed);
}

static void alone_stops_listening(void *ctx)
{
	struct crew *c = ctx;

	if (!c->handed_over)
		notify_send("STOPPING=1");
	c->ending = true;
	sockets_close(&c->sockets);
}

static void alone_ends(void *ctx)
{
	struct crew *c = ctx;

	timer_free(c->look);
	c->look = NULL;
}

static int run_alone(struct crew *c)
{
	const struct app_crew told = {.ctx = c,
		.up = alone_is_up,
		.ready = alone_is_ready,
		.stop_listening = alone_stops_listening,
		.reload = reload_alone,
		.down = alone_ends};

	return app_run(&(struct app_options){.started = c->started,
		.config = c->good,
		.shared = c->app_shared,
		.workers = 1,
		.sockets = {c->sockets.side[0], c->sockets.side[1]},
		.socket_count = {c->sockets.count[0], c->sockets.count[1]},
		.crew = &told,
		.accept_when_ready = c->sockets.handed.ready_fd >= 0});
}

int crew_run(const char *file, struct config *config, char *const *argv)
{
	struct crew c = {.file = file,
		.argv = argv,
		.watchdog_ms = notify_watchdog_ms(),
		.started = config,
		.good = config,
		.result = EXIT_DONE};
	int status = EXIT_LISTEN;

	raise_descriptor_limit();
	c.n = (int)(config->workers ? config->workers : sysconf(_SC_NPROCESSORS_ONLN));
	c.app_shared = app_share(c.n);
	if (sockets_open(&c.sockets, config))
		status = c.n > 1 ? supervise(&c) : run_alone(&c);
	else
		config_free(config);
	sockets_end(&c.sockets, c.handed_over);
	app_unshare(c.app_shared);
	return status;
}
