/* Listening sockets are opened once, by the process that starts first, and shared by all that it
 * forks: each accepts what it can, so that no connection waits for a process that has died. */
#include "http/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/addr.h"
#include "common/mem.h"

enum { BACKLOG = 1024 };

/* A socket file that nobody listens at is what a killed server left behind; one that answers, or is
 * no socket, is somebody's. */
static void unlink_stale(const struct addr *a)
{
	struct stat st;
	int fd;

	if (lstat(a->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, &a->sa, a->len) && errno == ECONNREFUSED)
		unlink(a->un.sun_path);
	if (fd >= 0)
		close(fd);
}

static bool find_group(const char *name, gid_t *gid)
{
	char *end;
	long number = strtol(name, &end, 10);
	const struct group *g;

	*gid = (gid_t)number;
	if (*name && !*end && number >= 0)
		return true;
	g = getgrnam(name); /* cppcheck-suppress getgrnamCalled ; before there is another thread */
	if (g)
		*gid = g->gr_gid;
	return g != NULL;
}

/* Nobody can connect before mode and group are what they should be. */
static bool bind_unix(
	int fd, const struct addr *a, const struct listen_options *o, const char **what)
{
	gid_t group = (gid_t)-1;
	mode_t mask;
	bool ok;

	*what = "unix_group: no such group";
	errno = 0;
	if (o->unix_group && *o->unix_group && !find_group(o->unix_group, &group))
		return false;
	*what = "bind";
	mask = umask(0777);
	ok = bind(fd, &a->sa, a->len) == 0;
	umask(mask);
	if (!ok)
		return false;
	*what = "unix_group";
	ok = group == (gid_t)-1 || chown(a->un.sun_path, (uid_t)-1, group) == 0;
	if (ok)
		*what = "unix_mode";
	return ok && chmod(a->un.sun_path, (mode_t)o->unix_mode) == 0;
}

static bool bind_tcp(int fd, const struct addr *a, const char **what)
{
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	*what = "bind";
	return bind(fd, &a->sa, a->len) == 0;
}

static int open_socket(const struct addr *a, const struct listen_options *o, const char **what)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), why;

	*what = "socket";
	if (fd < 0)
		return -1;
	if (addr_is_unix(a) ? bind_unix(fd, a, o, what) : bind_tcp(fd, a, what)) {
		*what = "listen";
		if (listen(fd, BACKLOG) == 0)
			return fd;
	}
	why = errno;
	close(fd);
	errno = why;
	return -1;
}

void listen_name(int fd, char *out, size_t n)
{
	struct addr a = {0};
	char text[ADDR_TEXT_MAX] = "?";

	a.len = sizeof(a.un);
	if (getsockname(fd, &a.sa, &a.len) == 0)
		addr_print(text, &a);
	snprintf(out, n, "%s", text);
}

static void remember_file(struct listen_socket *s, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return;
	s->unix_path = mem_strdup(path);
	s->dev = st.st_dev;
	s->ino = st.st_ino;
}

bool listen_open(struct listen_socket *s, const char *addr, const struct listen_options *o,
	char *err, size_t err_len)
{
	const char *what;
	struct addr a;

	*s = (struct listen_socket){.fd = -1};
	if (!addr_parse(&a, addr)) {
		snprintf(err, err_len, "%s: not " ADDR_SHAPE, addr);
		return false;
	}
	if (addr_is_unix(&a))
		unlink_stale(&a);
	s->fd = open_socket(&a, o, &what);
	if (s->fd < 0)
		snprintf(err, err_len, "%s: %s%s%s", addr, what, errno ? ": " : "",
			errno ? strerror(errno) : "");
	else if (addr_is_unix(&a))
		remember_file(s, a.un.sun_path);
	return s->fd >= 0;
}

static bool address_of(int fd, struct addr *a)
{
	*a = (struct addr){.len = sizeof(a->un)};
	return getsockname(fd, &a->sa, &a->len) == 0;
}

void listen_adopt(struct listen_socket *s, int fd, bool with_file)
{
	struct addr a;

	*s = (struct listen_socket){.fd = fd};
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (with_file && address_of(fd, &a) && addr_is_unix(&a))
		remember_file(s, a.un.sun_path);
}

bool listen_is_local(int fd)
{
	struct addr a;

	return address_of(fd, &a) && addr_is_local(&a);
}

void listen_close(struct listen_socket *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

void listen_end(struct listen_socket *s, bool keep_file)
{
	struct stat st;

	listen_close(s);
	if (s->unix_path && !keep_file && stat(s->unix_path, &st) == 0 && st.st_dev == s->dev &&
		st.st_ino == s->ino)
		unlink(s->unix_path);
	free(s->unix_path);
	s->unix_path = NULL;
}
