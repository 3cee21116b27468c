#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

enum { FIRST_FD = 3, HANDED_MAX = 64, READY_LIMIT_MS = 30000 };

extern char **environ;

static const char *const names[] = {"public", "internal"};
static const char *const variables[] = {
	"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_READY_FD"};

/* ---- in ---- */

static int number(const char *variable)
{
	const char *text = getenv(variable);

	return text ? atoi(text) : -1;
}

/* The side that is named, from *at to the next colon; -1: none. */
static int side_of(const char *at, size_t n, bool *with_file)
{
	static const char file[] = "/file";
	size_t suffix = sizeof(file) - 1;

	*with_file = n > suffix && !memcmp(at + n - suffix, file, suffix);
	n -= *with_file ? suffix : 0;
	for (int side = 0; side < 2; side++)
		if (n == strlen(names[side]) && !memcmp(at, names[side], n))
			return side;
	return -1;
}

bool handover_take(struct handed *h, struct listen_socket *sockets[2], size_t counts[2], char *err,
	size_t err_len)
{
	int n = number("LISTEN_PID") == getpid() ? number("LISTEN_FDS") : 0;
	const char *all = getenv("LISTEN_FDNAMES"), *at = all ? all : "";
	bool ok = true;

	*h = (struct handed){.any = n > 0, .ready_fd = n > 0 ? number("LISTEN_READY_FD") : -1};
	if (h->ready_fd >= 0)
		fcntl(h->ready_fd, F_SETFD, FD_CLOEXEC);
	for (int i = 0; i < n && ok; i++) {
		size_t len = strcspn(at, ":");
		bool with_file;
		int side = side_of(at, len, &with_file);

		ok = side >= 0 && i < HANDED_MAX;
		if (!ok) {
			snprintf(err, err_len,
				"a socket that was handed over is named %.*s: name it public or "
				"internal (FileDescriptorName=)",
				(int)(len < 64 ? len : 64), at);
			break;
		}
		sockets[side] =
			mem_realloc(sockets[side], sizeof(*sockets[side]) * (counts[side] + 1));
		listen_adopt(&sockets[side][counts[side]++], FIRST_FD + i, with_file);
		at += len + (at[len] == ':');
	}
	for (size_t i = 0; i < NELEM(variables); i++)
		unsetenv(variables[i]);
	return ok;
}

void handover_ready(struct handed *h)
{
	if (h->ready_fd < 0)
		return;
	(void)!write(h->ready_fd, "1", 1);
	close(h->ready_fd);
	h->ready_fd = -1;
}

/* ---- out ---- */

struct parcel {
	int  fds[HANDED_MAX + 1]; /* the sockets, then the pipe's end */
	int  n;
	char pid[40], count[40], ready[40];
	struct buf names;
	char **env;
};

static bool is_ours(const char *e)
{
	for (size_t i = 0; i < NELEM(variables); i++)
		if (!strncmp(e, variables[i], strlen(variables[i])) &&
			e[strlen(variables[i])] == '=')
			return true;
	return false;
}

static void pack(struct parcel *p, struct listen_socket *const sockets[2], const size_t counts[2])
{
	size_t n = 0;

	buf_str(&p->names, "LISTEN_FDNAMES=");
	for (int side = 0; side < 2; side++)
		for (size_t i = 0; i < counts[side] && p->n < HANDED_MAX; i++) {
			buf_printf(&p->names, "%s%s%s", p->n ? ":" : "", names[side],
				sockets[side][i].unix_path ? "/file" : "");
			p->fds[p->n++] = sockets[side][i].fd;
		}
	snprintf(p->pid, sizeof(p->pid), "LISTEN_PID=");
	snprintf(p->count, sizeof(p->count), "LISTEN_FDS=%d", p->n);
	snprintf(p->ready, sizeof(p->ready), "LISTEN_READY_FD=%d", FIRST_FD + p->n);
	while (environ[n])
		n++;
	p->env = mem_alloc(sizeof(*p->env) * (n + 5));
	n = 0;
	for (char **e = environ; *e; e++)
		if (!is_ours(*e))
			p->env[n++] = *e;
	p->env[n++] = p->pid;
	p->env[n++] = p->count;
	p->env[n++] = p->ready;
	p->env[n] = p->names.data;
}

/* Below a process that may have threads: nothing here takes a lock. */
static void become(struct parcel *p, char *const *argv)
{
	char digits[12], *d = digits + sizeof(digits);
	size_t at = strlen(p->pid);

	*--d = '\0';
	for (unsigned pid = (unsigned)getpid(); pid; pid /= 10)
		*--d = (char)('0' + pid % 10);
	memcpy(p->pid + at, d, strlen(d) + 1);
	for (int i = 0; i <= p->n; i++) /* out of the way of those that go to its place */
		p->fds[i] = fcntl(p->fds[i], F_DUPFD_CLOEXEC, FIRST_FD + HANDED_MAX + 1);
	for (int i = 0; i <= p->n; i++)
		if (dup2(p->fds[i], FIRST_FD + i) < 0)
			_exit(127);
	execvpe(argv[0], argv, p->env);
	_exit(127);
}

/* The successor is no child of this process, but at once one of process 1 (or of the user's
 * systemd). systemd waits for the end of a main process only if it was its child when it heard of
 * it: any other it kills at the next stop, with all that it serves. false: errno says why. */
static bool start_orphan(struct successor *s, struct parcel *p, char *const *argv)
{
	pid_t between, pid = 0;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return false;
	between = fork();
	if (between == 0) {
		pid = _Fork(); /* takes no lock either */
		if (pid == 0)
			become(p, argv);
		(void)!write(ends[1], &pid, sizeof(pid));
		_exit(0);
	}
	close(ends[1]);
	if (between > 0) {
		if (read(ends[0], &pid, sizeof(pid)) != sizeof(pid) || pid < 0)
			pid = 0;
		waitpid(between, NULL, 0);
		if (!pid)
			errno = EAGAIN;
	}
	close(ends[0]);
	s->pid = pid;
	return pid > 0;
}

bool successor_start(struct successor *s, char *const *argv, struct listen_socket *const sockets[2],
	const size_t counts[2])
{
	struct parcel p = {.n = 0};
	int ends[2];
	bool started;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return false;
	pack(&p, sockets, counts);
	p.fds[p.n] = ends[1];
	started = start_orphan(s, &p, argv);
	close(ends[1]);
	s->ready_fd = ends[0];
	s->deadline_ms = clock_ms() + READY_LIMIT_MS;
	free(p.env);
	buf_free(&p.names);
	if (!started)
		close(s->ready_fd);
	return started;
}

enum successor_state successor_look(struct successor *s)
{
	char said;
	ssize_t n;

	if (!s->pid)
		return SUCCESSOR_NONE;
	n = read(s->ready_fd, &said, 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR) && clock_ms() < s->deadline_ms)
		return SUCCESSOR_STARTS;
	close(s->ready_fd);
	if (n == 1)
		return SUCCESSOR_READY;
	if (n < 0) /* it lives: it has its end of the pipe. After n == 0 its pid may be another's */
		kill(s->pid, SIGKILL);
	s->pid = 0;
	return SUCCESSOR_FAILED;
}
