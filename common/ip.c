#include "common/ip.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static const uint8_t v4_start[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool ip_parse(struct ip *out, const char *text, size_t n)
{
	char copy[IP_TEXT_MAX];

	if (n >= sizeof(copy) || memchr(text, '\0', n))
		return false;
	memcpy(copy, text, n);
	copy[n] = '\0';
	if (memchr(text, ':', n))
		return inet_pton(AF_INET6, copy, out->b) == 1;
	memcpy(out->b, v4_start, sizeof(v4_start));
	return inet_pton(AF_INET, copy, out->b + sizeof(v4_start)) == 1;
}

bool ip_net_parse(struct ip_net *out, const char *text)
{
	size_t n = strcspn(text, "/");
	bool v6 = memchr(text, ':', n) != NULL;
	const char *bits = text + n + 1;

	if (!ip_parse(&out->ip, text, n))
		return false;
	out->bits = 128;
	if (!text[n])
		return true;
	n = strlen(bits);
	if (n < 1 || n > 3 || strspn(bits, "0123456789") != n)
		return false;
	out->bits = atoi(bits) + (v6 ? 0 : 96);
	return out->bits <= 128;
}

bool ip_net_has(const struct ip_net *net, const struct ip *ip)
{
	int whole = net->bits / 8, rest = net->bits % 8;
	uint8_t mask = (uint8_t)(0xff00 >> rest);

	if (memcmp(net->ip.b, ip->b, (size_t)whole) != 0)
		return false;
	return rest == 0 || ((net->ip.b[whole] ^ ip->b[whole]) & mask) == 0;
}

bool ip_is_v4(const struct ip *ip)
{
	return memcmp(ip->b, v4_start, sizeof(v4_start)) == 0;
}

bool ip_is_loopback(const struct ip *ip)
{
	static const uint8_t v6[16] = {[15] = 1};

	return ip_is_v4(ip) ? ip->b[12] == 127 : memcmp(ip->b, v6, sizeof(v6)) == 0;
}

/* inet_ntop prints each of the four with printf, which a login would notice. */
static void print_v4(char *out, const uint8_t b[4])
{
	char number[TEXT_INT_MAX];

	for (int i = 0; i < 4; i++) {
		out = stpcpy(out, text_int(number, b[i]));
		*out++ = i < 3 ? '.' : '\0';
	}
}

void ip_print(char out[IP_TEXT_MAX], const struct ip *ip)
{
	if (ip_is_v4(ip))
		print_v4(out, ip->b + sizeof(v4_start));
	else
		inet_ntop(AF_INET6, ip->b, out, IP_TEXT_MAX);
}
