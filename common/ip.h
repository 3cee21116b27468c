/* IP addresses and networks, from text to what can be compared. An IPv4 address is kept as IPv6
 * does (::ffff:a.b.c.d), so both are one kind. */
#ifndef COMMON_IP_H
#define COMMON_IP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IP_TEXT_MAX 46 /* with the NUL */

struct ip {
	uint8_t b[16];
};

struct ip_net {
	struct ip ip;
	int bits; /* of the 16 bytes */
};

/* "192.0.2.1", "2001:db8::1": nothing around it */
bool ip_parse(struct ip *out, const char *text, size_t n);
/* an address, or "10.0.0.0/8", "2001:db8::/32" */
bool ip_net_parse(struct ip_net *out, const char *text);
bool ip_net_has(const struct ip_net *net, const struct ip *ip);
bool ip_is_v4(const struct ip *ip);
bool ip_is_loopback(const struct ip *ip);
void ip_print(char out[IP_TEXT_MAX], const struct ip *ip);

#endif
