/* The ceiling: what libevhtp alone costs for an answer with the headers that /internal/auth sends,
 * and nothing behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <event2/event.h>
#include <evhtp/evhtp.h>

static void on_request(evhtp_request_t *r, void *arg)
{
	static char date[40];
	static time_t made;
	time_t now = time(NULL);
	const char *const headers[][2] = {
		{"Date", date},
		{"X-Request-Id", "0123456789abcdef"},
		{"X-Wx-Appid", "wxfa4efa4efa4efa4e"},
		{"X-Wx-Openid", "o0123456789abcdefghijklmnopq"},
		{"X-Wx-Unionid", ""},
		{"X-Wx-Expires-In", "604799"},
		{"Content-Length", "0"},
	};

	(void)arg;
	if (now != made) {
		struct tm tm;

		strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
		made = now;
	}
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]);
		i++) /* 0, 0: not even copied */
		evhtp_headers_add_header(
			r->headers_out, evhtp_header_new(headers[i][0], headers[i][1], 0, 0));
	evhtp_send_reply(r, EVHTP_RES_OK);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	evhtp_t *htp = evhtp_new(base, NULL);

	if (argc != 2) {
		fprintf(stderr, "usage: bare PORT\n");
		return 2;
	}
	evhtp_set_gencb(htp, on_request, NULL);
	if (evhtp_bind_socket(htp, "127.0.0.1", (uint16_t)atoi(argv[1]), 1024) != 0) {
		perror("bare: bind");
		return 1;
	}
	event_base_loop(base, 0);
	return 0;
}
