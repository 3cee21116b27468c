/* Listening sockets: addresses read, opened, named. */
#include "http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

enum { BACKLOG = 1024 };

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

static bool parse_tcp(const char *addr, union address *a, socklen_t *len)
{
	const char *colon = strrchr(addr, ':');
	char host[64], *end;
	size_t n;
	long port;

	if (!colon || !colon[1])
		return false;
	port = strtol(colon + 1, &end, 10);
	if (*end || port < 0 || port > 65535 || colon[1] < '0' || colon[1] > '9')
		return false;
	n = (size_t)(colon - addr);
	if (n >= sizeof(host))
		return false;
	memcpy(host, addr, n);
	host[n] = '\0';
	memset(a, 0, sizeof(*a));
	if (host[0] == '[' && n > 2 && host[n - 1] == ']') {
		host[n - 1] = '\0';
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = htons((uint16_t)port);
		*len = sizeof(a->in6);
		return inet_pton(AF_INET6, host + 1, &a->in6.sin6_addr) == 1;
	}
	a->in.sin_family = AF_INET;
	a->in.sin_port = htons((uint16_t)port);
	*len = sizeof(a->in);
	return inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &a->in.sin_addr) == 1;
}

/* A socket file that nobody listens at is what a killed server left behind; one that answers, or is no socket, is somebody's. */
static void unlink_stale(const union address *a, socklen_t len)
{
	struct stat st;
	int fd;

	if (lstat(a->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, &a->sa, len) && errno == ECONNREFUSED)
		unlink(a->un.sun_path);
	if (fd >= 0)
		close(fd);
}

static int open_socket(const union address *a, socklen_t len, bool reuse_port, const char **what)
{
	int on = 1, fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*what = "socket";
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
		if (reuse_port)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	}
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	*what = "bind";
	if (bind(fd, &a->sa, len) == 0) {
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
	union address a = {0};
	socklen_t len = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "", text[80];

	snprintf(text, sizeof(text), "%s", addr);
	if (getsockname(fd, &a.sa, &len) == 0 && a.sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a.in.sin_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "%s:%d", host, ntohs(a.in.sin_port));
	} else if (a.sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a.in6.sin6_addr, host, sizeof(host));
		snprintf(text, sizeof(text), "[%s]:%d", host, ntohs(a.in6.sin6_port));
	}
	log_info("listening", LOG_STR("listener", name), LOG_STR("address", text));
}

int listen_open(const char *addr, const char *name, bool reuse_port, char *err, size_t err_len)
{
	const char *unix_path = listen_unix_path(addr);
	union address a = {0};
	socklen_t len = sizeof(a.un);
	const char *what;
	int fd;

	if (unix_path && strlen(unix_path) < sizeof(a.un.sun_path) && *unix_path) {
		a.un.sun_family = AF_UNIX;
		strcpy(a.un.sun_path, unix_path);
		unlink_stale(&a, len);
	} else if (unix_path || !parse_tcp(addr, &a, &len)) {
		snprintf(err, err_len, "%s: not host:port with a numeric host, [v6]:port or unix:/path", addr);
		return -1;
	}
	fd = open_socket(&a, len, reuse_port, &what);
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
