/* Addresses and networks: what is one, and what lies in which. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/addr.h"
#include "common/ip.h"
#include "common/mem.h"

static void test_parse_and_print(void **state)
{
	static const struct { const char *in, *out; } cases[] = {
		{"192.0.2.1", "192.0.2.1"}, {"0.0.0.0", "0.0.0.0"}, {"2001:DB8::1", "2001:db8::1"}, {"::ffff:10.1.2.3", "10.1.2.3"}, {"::1", "::1"},
		{"", NULL}, {" 1.2.3.4", NULL}, {"1.2.3", NULL}, {"1.2.3.256", NULL}, {"1.2.3.4:80", NULL}, {"[::1]", NULL}, {"fe80::1%eth0", NULL},
		{"unknown", NULL}, {"1.2.3.4.5", NULL}, {"::1::", NULL}, {"0x7f.0.0.1", NULL},
		{"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111", NULL},
	};
	char text[IP_TEXT_MAX];
	struct ip ip;

	(void)state;
	for (size_t i = 0; i < NELEM(cases); i++) {
		assert_int_equal(
			ip_parse(&ip, cases[i].in, strlen(cases[i].in)), cases[i].out != NULL);
		if (!cases[i].out)
			continue;
		ip_print(text, &ip);
		assert_string_equal(text, cases[i].out);
	}
	assert_false(ip_parse(&ip, "1.2.3.4\0x", 9));
}

static void test_print_every_number(void **state)
{
	char in[IP_TEXT_MAX], out[IP_TEXT_MAX];
	struct ip ip;

	(void)state;
	for (int i = 0; i < 256; i++) {
		snprintf(in, sizeof(in), "%d.%d.%d.%d", i, 255 - i, i / 2, i / 16);
		assert_true(ip_parse(&ip, in, strlen(in)));
		ip_print(out, &ip);
		assert_string_equal(out, in);
	}
}

static void test_networks(void **state)
{
	static const struct { const char *net, *ip; bool in; } cases[] = {
		{"10.0.0.0/8", "10.255.1.2", true}, {"10.0.0.0/8", "11.0.0.0", false}, {"10.1.2.3", "10.1.2.3", true}, {"10.1.2.3", "10.1.2.4", false},
		{"192.168.1.128/25", "192.168.1.129", true}, {"192.168.1.128/25", "192.168.1.127", false}, {"0.0.0.0/0", "203.0.113.9", true},
		{"0.0.0.0/0", "2001:db8::1", false}, {"::/0", "203.0.113.9", true}, {"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::/33", "2001:db8:8000::1", false}, {"10.0.0.0/8", "::ffff:10.0.0.1", true}, {"172.16.0.0/12", "172.31.0.1", true},
		{"172.16.0.0/12", "172.32.0.1", false}, {"1.2.3.4/32", "1.2.3.5", false}, {"::1/128", "::1", true},
	};
	static const char *const wrong[] = {"", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1",
		"10.0.0.0/8x", "::/129", "10.0.0.0/ 8", "host/8", "10.0.0.0/0008", "/8"};
	struct ip_net net;
	struct ip ip;

	(void)state;
	for (size_t i = 0; i < NELEM(cases); i++) {
		assert_true(ip_net_parse(&net, cases[i].net) &&
			    ip_parse(&ip, cases[i].ip, strlen(cases[i].ip)));
		assert_int_equal(ip_net_has(&net, &ip), cases[i].in);
	}
	for (size_t i = 0; i < NELEM(wrong); i++)
		assert_false(ip_net_parse(&net, wrong[i]));
}

static void test_loopback(void **state)
{
	static const struct { const char *ip; bool is; } cases[] = {
		{"127.0.0.1", true}, {"127.9.9.9", true}, {"::1", true}, {"::ffff:127.0.0.1", true}, {"128.0.0.1", false}, {"::2", false}, {"10.0.0.1", false}};
	struct ip ip;

	(void)state;
	for (size_t i = 0; i < NELEM(cases); i++) {
		assert_true(ip_parse(&ip, cases[i].ip, strlen(cases[i].ip)));
		assert_int_equal(ip_is_loopback(&ip), cases[i].is);
	}
}

static void test_socket_addresses(void **state)
{
	static const struct { const char *in, *out; bool local; int port; } cases[] = {
		{"127.0.0.1:80", "127.0.0.1:80", true, 80}, {"localhost:8080", "127.0.0.1:8080", true, 8080}, {"0.0.0.0:1", "0.0.0.0:1", false, 1},
		{"127.9.9.9:0", "127.9.9.9:0", true, 0}, {"[::1]:80", "[::1]:80", true, 80}, {"[::]:65535", "[::]:65535", false, 65535},
		{"[2001:DB8::1]:443", "[2001:db8::1]:443", false, 443}, {"unix:/run/x.sock", "unix:/run/x.sock", true, 0},
	};
	static const char *const wrong[] = {
		"",
		"80",
		":80",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:65536",
		"127.0.0.1:-1",
		"127.0.0.1:+1",
		"127.0.0.1:80 ",
		"::1:80",
		"[127.0.0.1]:80",
		"[::1]",
		"[::1]80",
		"[]:80",
		"host:80",
		"unix:",
		"unix:relative",
		"127.0.0.1:000080",
	};
	char text[ADDR_TEXT_MAX], path[256] = "unix:/";
	struct addr a;

	(void)state;
	for (size_t i = 0; i < NELEM(cases); i++) {
		assert_true(addr_parse(&a, cases[i].in));
		addr_print(text, &a);
		assert_string_equal(text, cases[i].out);
		assert_int_equal(addr_is_local(&a), cases[i].local);
		assert_int_equal(addr_port(&a), cases[i].port);
	}
	for (size_t i = 0; i < NELEM(wrong); i++)
		if (addr_parse(&a, wrong[i]))
			fail_msg("%s", wrong[i]);
	memset(path + 6, 'x', 106); /* 107 bytes: the longest that a socket's name can be */
	assert_true(addr_parse(&a, path));
	addr_print(text, &a);
	assert_string_equal(text, path);
	path[112] = 'x';
	assert_false(addr_parse(&a, path));
}

static void test_clashes(void **state)
{
	static const struct { const char *a, *b; bool clash; } cases[] = {
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "127.0.0.2:80", false}, {"127.0.0.1:80", "127.0.0.1:81", false},
		{"0.0.0.0:80", "127.0.0.1:80", true}, {"[::]:80", "[::1]:80", true}, {"[::]:80", "0.0.0.0:80", false}, {"127.0.0.1:0", "127.0.0.1:0", false},
		{"unix:/a", "unix:/a", true}, {"unix:/a", "unix:/b", false},
	};
	struct addr a, b;

	(void)state;
	for (size_t i = 0; i < NELEM(cases); i++) {
		assert_true(addr_parse(&a, cases[i].a) && addr_parse(&b, cases[i].b));
		assert_int_equal(addr_clashes(&a, &b), cases[i].clash);
		assert_int_equal(addr_clashes(&b, &a), cases[i].clash);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_print),
		cmocka_unit_test(test_print_every_number),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_socket_addresses),
		cmocka_unit_test(test_clashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
