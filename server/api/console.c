/* The operators' page: a few static files that lie in the program byte for byte. They hold nothing
 * secret, so they ask for no token; the page does, and sends it with each call that it makes. */
#include <string.h>

#include "api/routes.h"
#include "common/mem.h"

/* The one list: symbol, what stands below the route, type, file. */
#define JS "text/javascript; charset=utf-8"
#define FILES(X)                                                                                  \
	X(console_html, "",           "text/html; charset=utf-8", "server/api/console/index.html")    \
	X(console_css,  "page.css",   "text/css; charset=utf-8",  "server/api/console/page.css")      \
	X(console_svg,  "icon.svg",   "image/svg+xml",            "server/api/console/icon.svg")      \
	X(console_main, "main.js",    JS,                         "server/api/console/main.js")       \
	X(console_call, "call.js",    JS,                         "server/api/console/call.js")       \
	X(console_live, "live.js",    JS,                         "server/api/console/live.js")       \
	X(console_user, "people.js",  JS,                         "server/api/console/people.js")     \
	X(console_text, "texts.js",   JS,                         "server/api/console/texts.js")

/* The assembler puts each file where other constants are. Paths are from the top of the tree, where
 * make runs. */
#define EMBED(id, name, type, file) \
	__asm__(".pushsection .rodata\n" #id "_from:\n.incbin \"" file "\"\n" #id \
		"_to:\n.byte 0\n.popsection\n"); \
	extern const char id##_from[], id##_to[];
FILES(EMBED)

static const struct {
	const char *name, *type, *from, *to;
} files[] = {
#define ROW(id, name, type, file) {name, type, id##_from, id##_to},
	FILES(ROW)
};

/* No script but these files, no other host, no frame around it; and no text can become markup
 * (trusted types). */
static void add_policy(struct req *r)
{
	req_add_header(r, "Content-Security-Policy",
		"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
		"require-trusted-types-for 'script'; trusted-types 'none'");
	req_add_header(r, "X-Frame-Options", "DENY");
	req_add_header(r, "X-Content-Type-Options", "nosniff");
	req_add_header(r, "Referrer-Policy", "no-referrer");
	req_add_header(r, "Cross-Origin-Resource-Policy", "same-origin");
	req_add_header(r, "Cross-Origin-Opener-Policy", "same-origin");
}

void console_handle(struct api *api, struct req *r)
{
	const char *name = route_rest(r);
	size_t i = 0;

	(void)api;
	while (i < NELEM(files) && strcmp(files[i].name, name) != 0)
		i++;
	if (i == NELEM(files)) {
		req_reply_outcome(r, OC_NOT_FOUND);
		return;
	}
	add_policy(r);
	req_reply(r, 200, files[i].type, files[i].from, (size_t)(files[i].to - files[i].from));
}
