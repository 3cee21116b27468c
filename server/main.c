/* wxlogind: arguments, --check, exit status. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "common/buf.h"
#include "common/log.h"
#include "connect.h"
#include "crew.h"

static const char usage[] =
	"usage: wxlogind [-c FILE] [--check [--connect]] [--version] [--help]\n"
	"  -c FILE     configuration (default " CONFIG_DEFAULT_FILE ";\n"
	"              without this file: built-in defaults and environment variables)\n"
	"  --check     read the configuration and the secrets it names, print what is wrong,\n"
	"              exit with 0 (good) or 1\n"
	"  --connect   with --check: also try to listen on the addresses and to connect to Redis,\n"
	"              the user database and WeChat; print what each answered; change nothing\n"
	"Exit status: 0 done, 1 bad configuration or no user database, 2 bad command line,\n"
	"3 cannot listen, other: a bug.\n";

/* What was said of the configuration, until it is known whom to tell, and in which format. */
struct said {
	struct buf texts; /* each behind 'E' or 'W', and ended by a NUL */
};

static void on_said(void *ctx, bool is_error, const char *text)
{
	struct said *s = ctx;

	buf_add(&s->texts, is_error ? "E" : "W", 1);
	buf_add(&s->texts, text, strlen(text) + 1);
}

static void tell(struct said *s, bool to_log)
{
	for (const char *at = s->texts.data; at && at < s->texts.data + s->texts.len;
		at += strlen(at) + 1)
		if (to_log)
			log_warn("configuration", LOG_STR("note", at + 1));
		else
			fprintf(stderr, "wxlogind: %s%s\n", *at == 'E' ? "" : "warning: ", at + 1);
	buf_free(&s->texts);
}

static int check_only(struct config *config, bool connect)
{
	bool ok = true;

	puts("wxlogind: the configuration is good");
	if (connect) {
		log_init(LOG_WARN, config->log_format);
		ok = connect_all(config);
	}
	config_free(config);
	return ok ? EXIT_DONE : EXIT_CONFIG;
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	struct config *config;
	struct said said = {0};
	bool check = false, connect = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-c") && i + 1 < argc) {
			file = argv[++i];
		} else if (!strcmp(argv[i], "--check")) {
			check = true;
		} else if (!strcmp(argv[i], "--connect")) {
			connect = true;
		} else if (!strcmp(argv[i], "--version")) {
			puts("wxlogind " VERSION);
			return EXIT_DONE;
		} else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(usage, stdout);
			return EXIT_DONE;
		} else {
			fprintf(stderr, "wxlogind: %s: not known, or without its value\n%s",
				argv[i], usage);
			return EXIT_USAGE;
		}
	}
	if (connect && !check) {
		fprintf(stderr, "wxlogind: --connect goes with --check\n%s", usage);
		return EXIT_USAGE;
	}
	if (!check)
		crew_prepare();
	config = config_load(file, on_said, &said);
	if (config && !check)
		log_init(config->log_level, config->log_format);
	tell(&said, config && !check);
	if (!config)
		return EXIT_CONFIG;
	if (check)
		return check_only(config, connect);
	return crew_run(file, config, argv);
}
