#include "common/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ip.h"

static bool parse_unix(struct addr *a, const char *path)
{
	size_t n = strlen(path);

	if (*path != '/' || n >= sizeof(a->un.sun_path))
		return false;
	a->un.sun_family = AF_UNIX;
	memcpy(a->un.sun_path, path, n + 1);
	a->len = sizeof(a->un);
	return true;
}

static bool parse_port(const char *text, in_port_t *port)
{
	size_t n = strlen(text);
	int v;

	if (n < 1 || n > 5 || strspn(text, "0123456789") != n)
		return false;
	v = atoi(text);
	*port = htons((uint16_t)v);
	return v <= 65535;
}

static bool is_v6_text(const char *host, size_t n)
{
	return n > 2 && host[0] == '[' && host[n - 1] == ']';
}

bool addr_parse(struct addr *a, const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	bool v6 = is_v6_text(text, n);
	in_port_t port;
	struct ip ip;

	memset(a, 0, sizeof(*a));
	if (!strncmp(text, "unix:", 5))
		return parse_unix(a, text + 5);
	if (!colon || !parse_port(colon + 1, &port))
		return false;
	if (n == 9 && !memcmp(text, "localhost", n))
		ip_parse(&ip, "127.0.0.1", 9);
	else if (!ip_parse(&ip, v6 ? text + 1 : text, v6 ? n - 2 : n) ||
		 v6 != (memchr(text, ':', n) != NULL))
		return false;
	if (v6) {
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = port;
		memcpy(&a->in6.sin6_addr, ip.b, sizeof(ip.b));
		a->len = sizeof(a->in6);
	} else {
		a->in.sin_family = AF_INET;
		a->in.sin_port = port;
		memcpy(&a->in.sin_addr, ip.b + 12, 4);
		a->len = sizeof(a->in);
	}
	return true;
}

bool addr_is_unix(const struct addr *a)
{
	return a->sa.sa_family == AF_UNIX;
}

bool addr_is_local(const struct addr *a)
{
	if (a->sa.sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
	return addr_is_unix(a) || ntohl(a->in.sin_addr.s_addr) >> 24 == 127;
}

int addr_port(const struct addr *a)
{
	return addr_is_unix(a)
		       ? 0
		       : ntohs(a->sa.sa_family == AF_INET6 ? a->in6.sin6_port : a->in.sin_port);
}

static bool is_any(const struct addr *a)
{
	return a->sa.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)
					   : a->in.sin_addr.s_addr == htonl(INADDR_ANY);
}

static bool same_host(const struct addr *a, const struct addr *b)
{
	return a->sa.sa_family == AF_INET6
		       ? IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr)
		       : a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

bool addr_clashes(const struct addr *a, const struct addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	if (addr_is_unix(a))
		return !strcmp(a->un.sun_path, b->un.sun_path);
	if (addr_port(a) != addr_port(b) || addr_port(a) == 0)
		return false;
	return is_any(a) || is_any(b) || same_host(a, b);
}

void addr_print(char out[ADDR_TEXT_MAX], const struct addr *a)
{
	char host[INET6_ADDRSTRLEN] = "";

	if (addr_is_unix(a)) {
		snprintf(out, ADDR_TEXT_MAX, "unix:%s", a->un.sun_path);
	} else if (a->sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
		snprintf(out, ADDR_TEXT_MAX, "[%s]:%d", host, addr_port(a));
	} else {
		inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
		snprintf(out, ADDR_TEXT_MAX, "%s:%d", host, addr_port(a));
	}
}
