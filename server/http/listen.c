/* Listening sockets: opened, named. */
#include "http/listen.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/addr.h"
#include "common/log.h"

enum { BACKLOG = 1024 };

/* A socket file that nobody listens at is what a killed server left behind; one that answers, or is no socket, is somebody's. */
static void unlink_stale(const struct addr *a)
{
	struct stat st;
	int fd;

	if (lstat(a->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, &a->sa, a->len) && errno == ECONNREFUSED)
		unlink(a->un.sun_path);
	if (fd >= 0)
		close(fd);
}

static int open_socket(const struct addr *a, bool reuse_port, const char **what)
{
	int on = 1, fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*what = "socket";
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!addr_is_unix(a)) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
		if (reuse_port)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	}
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	*what = "bind";
	if (bind(fd, &a->sa, a->len) == 0) {
		*what = "listen";
		if (listen(fd, BACKLOG) == 0)
			return fd;
	}
	on = errno;
	close(fd);
	errno = on;
	return -1;
}

static void log_listening(const char *name, int fd, const char *addr)
{
	struct addr a = {0};
	char text[ADDR_TEXT_MAX];

	a.len = sizeof(a.un);
	snprintf(text, sizeof(text), "%s", addr);
	if (strncmp(addr, "unix:", 5) && getsockname(fd, &a.sa, &a.len) == 0)
		addr_print(text, &a); /* with the port that was asked for as 0 */
	log_info("listening", LOG_STR("listener", name), LOG_STR("address", text));
}

int listen_open(const char *addr, const char *name, bool reuse_port, char *err, size_t err_len)
{
	const char *unix_path = listen_unix_path(addr);
	struct addr a;
	const char *what;
	int fd;

	if (!addr_parse(&a, addr)) {
		snprintf(err, err_len, "%s: not " ADDR_SHAPE, addr);
		return -1;
	}
	if (unix_path)
		unlink_stale(&a);
	fd = open_socket(&a, reuse_port, &what);
	if (fd < 0) {
		snprintf(err, err_len, "%s: %s: %s", addr, what, strerror(errno));
		return -1;
	}
	if (unix_path)
		chmod(unix_path, 0660);
	log_listening(name, fd, addr);
	return fd;
}

const char *listen_unix_path(const char *addr)
{
	return strncmp(addr, "unix:", 5) ? NULL : addr + 5;
}
