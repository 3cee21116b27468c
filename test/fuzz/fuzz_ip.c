/* Addresses as text, and who sent a request by X-Forwarded-For: what is read prints to what reads
 * as the same; what stands left of the first address that is no trusted proxy changes nothing; one
 * header or several makes no difference.
 *
 * Input: lines; the first is also read as an address and a network, all are X-Forwarded-For
 * headers. */
#include "fuzz.h"

#include "http/req.h"

/* guard.c with a request that has nothing but these. */
static struct {
	const char *peer, *values[64];
	int count;
} request;

static const char *fake_peer(const struct req *r)
{
	(void)r;
	return request.peer;
}

static int fake_count(const struct req *r, const char *name)
{
	(void)r;
	(void)name;
	return request.count;
}

static const char *fake_nth(const struct req *r, const char *name, int n)
{
	(void)r;
	(void)name;
	return request.values[n];
}

#define req_peer fake_peer
#define req_header_count fake_count
#define req_header_nth fake_nth
#include "server/api/guard.c"

#include "common/addr.h"
#include "common/buf.h"
#include "common/mem.h"

static struct ip_net trusted[3];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_init(LOG_ERROR, LOG_LOGFMT);
	MUST(ip_net_parse(&trusted[0], "10.0.0.0/8") &&
		ip_net_parse(&trusted[1], "2001:db8::/33") && ip_net_parse(&trusted[2], "1::1"));
	return 0;
}

static void address(const char *text)
{
	struct ip ip, back;
	struct ip_net net;
	char print[IP_TEXT_MAX];
	char *exact = exactly(text, strlen(text));
	bool ok = ip_parse(&ip, exact, strlen(text));

	free(exact);
	if (ok) {
		ip_print(print, &ip);
		MUST(ip_parse(&back, print, strlen(print)) && !memcmp(&ip, &back, sizeof(ip)));
		MUST(ip_net_parse(&net, text) && net.bits == 128 && ip_net_has(&net, &ip));
	}
	if (ip_net_parse(&net, text)) {
		MUST(net.bits >= 0 && net.bits <= 128 && ip_net_has(&net, &net.ip));
		if (net.bits > 0) {
			ip = net.ip;
			ip.b[(net.bits - 1) / 8] ^= (uint8_t)(0x80 >> (net.bits - 1) % 8);
			MUST(!ip_net_has(&net, &ip)); /* the last bit that counts */
		}
		if (net.bits < 128) {
			ip = net.ip;
			ip.b[net.bits / 8] ^= (uint8_t)(0x80 >> net.bits % 8);
			MUST(ip_net_has(&net, &ip)); /* the first that does not */
		}
	}
}

static void socket_address(const char *text)
{
	struct addr a, back;
	char print[ADDR_TEXT_MAX];

	if (!addr_parse(&a, text))
		return;
	addr_print(print, &a);
	MUST(addr_parse(&back, print) && back.len == a.len && !memcmp(&a, &back, sizeof(a)));
	MUST(addr_clashes(&a, &back) == (addr_is_unix(&a) || addr_port(&a) != 0));
}

static struct client who(void)
{
	struct api api = {.trusted_proxies = trusted,
		.trusted_proxy_count = NELEM(trusted),
		.warned_unnamed = true};
	struct client c;

	memset(&c, 0, sizeof(c));
	guard_client(&api, NULL, &c);
	return c;
}

static void same_client(const struct client *a, const struct client *b)
{
	MUST(!strcmp(a->text, b->text) && a->limited == b->limited &&
		!memcmp(&a->ip, &b->ip, sizeof(a->ip)));
}

static void forwarded(char **lines, int n)
{
	struct api api = {.trusted_proxies = trusted, .trusted_proxy_count = NELEM(trusted)};
	struct client c, other;
	struct ip back;
	struct buf all = {0};

	request.peer = "10.1.2.3";
	request.count = n;
	for (int i = 0; i < n; i++)
		request.values[i] = lines[i];
	c = who();
	MUST(ip_parse(&back, c.text, strlen(c.text)) && !memcmp(&back, &c.ip, sizeof(back)));

	for (int i = 0; i < n; i++)
		buf_printf(&all, "%s%s", i ? "," : "", lines[i]);
	request.count = 1;
	request.values[0] = all.data;
	other = who();
	same_client(&c, &other);

	if (!is_trusted(&api, &c.ip)) {
		struct buf more = {0};

		buf_printf(&more, "192.0.2.99, 10.0.0.1,%s", all.data);
		request.values[0] = more.data;
		other = who();
		same_client(&c, &other);
		buf_free(&more);
	}

	request.peer = "192.0.2.1"; /* whoever is not trusted speaks for itself alone */
	c = who();
	MUST(!strcmp(c.text, "192.0.2.1") && c.limited);
	buf_free(&all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	char *lines[NELEM(request.values)];
	int n = 0;

	do
		lines[n++] = take_text(&in, '\n');
	while (in.n > 0 && n < (int)NELEM(lines));
	address(lines[0]);
	socket_address(lines[0]);
	forwarded(lines, n);
	while (n > 0)
		free(lines[--n]);
	return 0;
}
