/* wxlogind: arguments, --check, exit status. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "crew.h"

static const char usage[] =
	"usage: wxlogind [-c FILE] [--check] [--version] [--help]\n"
	"  -c FILE     configuration (default " CONFIG_DEFAULT_FILE "; without the file, built-in defaults and environment)\n"
	"  --check     read the configuration and the secrets it names, say what is wrong, exit 0 or 1\n"
	"Exit status: 0 done, 1 bad configuration or no user database, 2 bad command line, 3 cannot listen, other: a fault.\n";

static void print_said(void *ctx, bool is_error, const char *text)
{
	(void)ctx;
	fprintf(stderr, "wxlogind: %s%s\n", is_error ? "" : "warning: ", text);
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	struct config *config;
	bool check = false;

	crew_hold_signals();
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-c") && i + 1 < argc) {
			file = argv[++i];
		} else if (!strcmp(argv[i], "--check")) {
			check = true;
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
	config = config_load(file, print_said, NULL);
	if (!config)
		return EXIT_CONFIG;
	if (check) {
		config_free(config);
		puts("wxlogind: the configuration is good");
		return EXIT_DONE;
	}
	return crew_run(file, config);
}
