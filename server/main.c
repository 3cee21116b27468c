/* wxlogind: arguments, --check, exit status. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "common/log.h"
#include "connect.h"
#include "crew.h"

static const char usage[] =
	"usage: wxlogind [-c FILE] [--check [--connect]] [--version] [--help]\n"
	"  -c FILE     configuration (default " CONFIG_DEFAULT_FILE "; without the file, built-in defaults and environment)\n"
	"  --check     read the configuration and the secrets it names, say what is wrong, exit 0 or 1\n"
	"  --connect   with --check: also bind the addresses (and let go), ask Redis, the user database and WeChat's hosts,\n"
	"              and say what each answered; nothing is changed\n"
	"Exit status: 0 done, 1 bad configuration or no user database, 2 bad command line, 3 cannot listen, other: a fault.\n";

static void print_said(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	fprintf(stderr, "wxlogind: %s%s\n", is_error ? "" : "warning: ", text);
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
			fprintf(stderr, "wxlogind: %s: not known, or without its value\n%s", argv[i], usage);
			return EXIT_USAGE;
		}
	}
	if (connect && !check) {
		fprintf(stderr, "wxlogind: --connect goes with --check\n%s", usage);
		return EXIT_USAGE;
	}
	if (!check)
		crew_hold_signals();
	config = config_load(file, print_said, NULL);
	if (!config)
		return EXIT_CONFIG;
	if (check)
		return check_only(config, connect);
	return crew_run(file, config);
}
