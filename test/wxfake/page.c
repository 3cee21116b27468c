/* The page that GET / serves: the sample mini program on a phone made of browser parts, and beside
 * it what travels.
 *
 * Its files are plain ones, in page/ and miniprogram/, and lie in the program byte for byte. A
 * script of the mini program is sent inside define(name, function ...), as WeChat's developer tools
 * do it: that gives each file a scope and a require() of its own. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "fake.h"

#define HTML "text/html; charset=utf-8"
#define CSS  "text/css; charset=utf-8"
#define JS   "text/javascript; charset=utf-8"
#define SVG  "image/svg+xml"
#define TEXT "text/plain; charset=utf-8"
#define JSON "application/json"

/* The one list: symbol, URL, type, file. What begins with MINI is the mini program's. */
#define MINI "/fake/page/miniprogram/"
#define FILES(X) \
	X(page_html, "/", HTML, "test/wxfake/page/index.html") \
	X(page_css, "/fake/page/page.css", CSS, "test/wxfake/page/page.css") \
	X(screen_css, "/fake/page/screen.css", CSS, "test/wxfake/page/screen.css") \
	X(define_js, "/fake/page/define.js", JS, "test/wxfake/page/define.js") \
	X(main_js, "/fake/page/main.js", JS, "test/wxfake/page/main.js") \
	X(wx_js, "/fake/page/wx.js", JS, "test/wxfake/page/wx.js") \
	X(screen_js, "/fake/page/screen.js", JS, "test/wxfake/page/screen.js") \
	X(diagram_js, "/fake/page/diagram.js", JS, "test/wxfake/page/diagram.js") \
	X(texts_js, "/fake/page/texts.js", JS, "test/wxfake/page/texts.js") \
	X(icon_svg, "/fake/page/icon.svg", SVG, "test/wxfake/page/icon.svg") \
	X(face1_svg, "/fake/page/face-1.svg", SVG, "test/wxfake/page/face-1.svg") \
	X(face2_svg, "/fake/page/face-2.svg", SVG, "test/wxfake/page/face-2.svg") \
	X(face3_svg, "/fake/page/face-3.svg", SVG, "test/wxfake/page/face-3.svg") \
	X(common_js, MINI "common/common.js", JS, "miniprogram/common/common.js") \
	X(app_js, MINI "app.js", JS, "miniprogram/app.js") \
	X(app_json, MINI "app.json", JSON, "miniprogram/app.json") \
	X(app_wxss, MINI "app.wxss", TEXT, "miniprogram/app.wxss") \
	X(index_js, MINI "pages/index/index.js", JS, "miniprogram/pages/index/index.js") \
	X(index_json, MINI "pages/index/index.json", JSON, "miniprogram/pages/index/index.json") \
	X(index_wxml, MINI "pages/index/index.wxml", TEXT, "miniprogram/pages/index/index.wxml") \
	X(pay_js, MINI "pages/pay/pay.js", JS, "miniprogram/pages/pay/pay.js") \
	X(pay_json, MINI "pages/pay/pay.json", JSON, "miniprogram/pages/pay/pay.json") \
	X(pay_wxml, MINI "pages/pay/pay.wxml", TEXT, "miniprogram/pages/pay/pay.wxml") \
	X(profile_js, MINI "pages/profile/profile.js", JS, "miniprogram/pages/profile/profile.js") \
	X(profile_json, MINI "pages/profile/profile.json", JSON, \
		"miniprogram/pages/profile/profile.json") \
	X(profile_wxml, MINI "pages/profile/profile.wxml", TEXT, \
		"miniprogram/pages/profile/profile.wxml") \
	X(profile_wxss, MINI "pages/profile/profile.wxss", TEXT, \
		"miniprogram/pages/profile/profile.wxss")

/* The assembler puts each file where other constants are. Paths are from the top of the tree, where
 * make runs. */
#define EMBED(id, url, type, file) \
	__asm__(".pushsection .rodata\n" #id "_from:\n.incbin \"" file "\"\n" #id \
		"_to:\n.byte 0\n.popsection\n"); \
	extern const char id##_from[], id##_to[];
FILES(EMBED)

static const struct {
	const char *url, *type, *from, *to;
} files[] = {
#define ROW(id, url, type, file) {url, type, id##_from, id##_to},
	FILES(ROW)
};

/* ---- where wxlogind is ---- */

/* Also safe inside a header: no blank, quote, comma or semicolon. */
static bool plain(const char *s, size_t n)
{
	return n &&
	       strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:[]") >=
		       n;
}

/* The length of scheme, host and port; 0 when it is no such URL. */
static size_t origin_len(const char *url)
{
	size_t skip = !strncmp(url, "https://", 8)  ? 8
		      : !strncmp(url, "http://", 7) ? 7
						    : 0,
	       n = strcspn(url + skip, "/");

	return skip && plain(url + skip, n) ? skip + n : 0;
}

bool page_server_ok(const char *url)
{
	return origin_len(url) && !strpbrk(url, " \t\r\n\"'?#,;");
}

static const char *server_of(struct fake *f, struct req *r)
{
	const char *host = req_header(r, "Host");
	size_t n;

	if (f->wxlogind)
		return f->wxlogind;
	if (!host)
		host = "127.0.0.1";
	n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	if (n > strlen(host) || !plain(host, n))
		return "http://127.0.0.1:8080";
	return arena_printf(req_arena(r), "http://%.*s:8080", (int)n, host);
}

void page_about(struct fake *f, struct req *r)
{
	struct buf b = {0};
	const char *server = server_of(f, r);

	events_at(&b, clock_wall_us()); /* by which the page learns how its clock and ours differ */
	buf_str(&b, ",\"wxlogind\":");
	buf_json_str(&b, server, strlen(server));
	buf_printf(&b, ",\"redis\":%s,\"kill_redis\":%s,\"internal\":%s,\"apps\":[",
		f->monitors ? "true" : "false", f->servers ? "true" : "false",
		f->internal_host[0] ? "true" : "false");
	for (int i = 0; i < f->app_count; i++)
		buf_printf(&b, "%s\"%s\"", i ? "," : "", f->apps[i].appid);
	buf_str(&b, "]}");
	req_reply_json(r, 200, b.data);
	buf_free(&b);
}

/* ---- files ---- */

static void reply_script(struct req *r, const char *name, const char *from, size_t len)
{
	struct buf b = {0};

	buf_printf(&b,
		"define(\"%s\", function (require, module, exports, wx, App, Page, getApp) {",
		name);
	buf_add(&b, from, len);
	buf_str(&b, "});\n");
	req_reply(r, 200, JS, b.data, b.len);
	buf_free(&b);
}

static void reply_file(struct fake *f, struct req *r, size_t i)
{
	const char *server = server_of(f, r), *url = files[i].url;
	size_t len = (size_t)(files[i].to - files[i].from);

	req_add_header(r, "Cache-Control", "no-cache");
	req_add_header(r, "X-Content-Type-Options", "nosniff");
	req_add_header(r, "Referrer-Policy", "no-referrer");
	req_add_header(r, "Cross-Origin-Resource-Policy", "same-origin");
	req_add_header(r, "Content-Security-Policy",
		arena_printf(req_arena(r),
			"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
			"connect-src 'self' %.*s; base-uri 'none'; form-action 'none'; "
			"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types "
			"'none'",
			(int)origin_len(server), server));
	if (!strncmp(url, MINI, sizeof(MINI) - 1) && !strcmp(files[i].type, JS))
		reply_script(r, url + sizeof(MINI) - 1, files[i].from, len);
	else
		req_reply(r, 200, files[i].type, files[i].from, len);
}

bool page_handle(struct fake *f, struct req *r)
{
	size_t i = 0;

	while (i < NELEM(files) && strcmp(files[i].url, req_path(r)) != 0)
		i++;
	if (i == NELEM(files))
		return false;
	req_set_route(r, "/");
	if (req_method(r) == METHOD_GET || req_method(r) == METHOD_HEAD) {
		reply_file(f, r, i);
		return true;
	}
	req_add_header(r, "Allow", "GET, HEAD");
	req_reply_outcome(r, OC_METHOD_NOT_ALLOWED);
	return true;
}
