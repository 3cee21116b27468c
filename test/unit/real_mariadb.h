/* A mariadbd of the test's own, on a unix socket in a directory of its own. */
#ifndef REAL_MARIADB_H
#define REAL_MARIADB_H

#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mariadb/mysql.h>

#include "unit.h"

struct real_mariadb {
	char  dir[64];
	char  socket[96];
	pid_t pid;
};

/* Quiet; true when it went well. */
static inline bool real_mariadb_shell(const char *command)
{
	int status = system(command); /* NOLINT(cert-env33-c): a command of this file */

	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static inline MYSQL *real_mariadb_root(const struct real_mariadb *rm)
{
	MYSQL *m = mysql_init(NULL);

	if (mysql_real_connect(
		    m, "localhost", "root", "", NULL, 0, rm->socket, CLIENT_MULTI_STATEMENTS))
		return m;
	mysql_close(m);
	return NULL;
}

/* As root; fails the test when the server refuses. */
static inline void real_mariadb_do(const struct real_mariadb *rm, const char *sql)
{
	MYSQL *m = real_mariadb_root(rm);

	assert_non_null(m);
	if (mysql_query(m, sql))
		fail_msg("%s: %s", sql, mysql_error(m));
	while (mysql_next_result(m) == 0)
		;
	mysql_close(m);
}

/* Starts it where it was before; returns once it answers. */
static inline void real_mariadb_up(struct real_mariadb *rm)
{
	char datadir[96], sock[112], user[64];
	MYSQL *m = NULL;

	snprintf(datadir, sizeof(datadir), "--datadir=%s/data", rm->dir);
	snprintf(sock, sizeof(sock), "--socket=%s", rm->socket);
	snprintf(user, sizeof(user), "--user=%s", getpwuid(getuid())->pw_name);
	rm->pid = fork();
	if (rm->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* an aborted test leaves nothing behind */
		if (freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr))
			execlp("mariadbd", "mariadbd", "--no-defaults", datadir, sock, user,
				"--skip-networking", "--innodb-buffer-pool-size=16M",
				"--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=2",
				"--performance-schema=OFF", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 1200 && !(m = real_mariadb_root(rm)); i++)
		usleep(50000);
	assert_non_null(m);
	mysql_close(m);
}

static inline void real_mariadb_start(struct real_mariadb *rm)
{
	char command[600];

	snprintf(rm->dir, sizeof(rm->dir), "/tmp/wxlogind-test-XXXXXX");
	if (!mkdtemp(rm->dir))
		abort();
	snprintf(rm->socket, sizeof(rm->socket), "%s/mariadb.sock", rm->dir);
	snprintf(command, sizeof(command),
		"cd %s; for i in 1 2 3; do rm -rf data; mariadb-install-db --no-defaults "
		"--datadir=%s/data "
		"--auth-root-authentication-method=normal --skip-test-db --innodb-log-file-size=8M "
		"--user=%s >install.log 2>&1 && exit; done; "
		"cat install.log; exit 1",
		rm->dir, rm->dir, getpwuid(getuid())->pw_name);
	if (!real_mariadb_shell(command)) /* three times: on a busy machine it gives up waiting for
					     its own server now and then */
		fail_msg("mariadb-install-db failed");
	real_mariadb_up(rm);
}

static inline void real_mariadb_kill(struct real_mariadb *rm)
{
	kill(rm->pid, SIGKILL);
	waitpid(rm->pid, NULL, 0);
}

static inline void real_mariadb_stop(struct real_mariadb *rm)
{
	char command[128];

	real_mariadb_kill(rm);
	snprintf(command, sizeof(command), "rm -rf %s", rm->dir);
	real_mariadb_shell(command);
}

#endif
