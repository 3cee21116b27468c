/* What the two halves of MySQL share: the connection and its schema (user_mysql.c), and users' rows
 * (user_mysql_rows.c). */
#ifndef STORE_USER_MYSQL_H
#define STORE_USER_MYSQL_H

#include <mariadb/mysql.h>

#include "common/buf.h"
#include "store/user_list.h"

#define TABLES "wxlogind_"
#define TABLE TABLES "users"

struct mysql {
	MYSQL     *link;       /* NULL: there is no connection */
	const struct user_db_options *o;
	char      *why;
	int64_t    back_off_ms;
	struct buf sql;
};

/* Ends the transaction, and the connection where it cannot be used any more. What it means, with
 * the cause in why. */
enum user_status user_mysql_undo(struct mysql *m);

/* As user_ops has them. */
enum user_status user_mysql_load(void *state, struct user_row *rows, size_t n, bool writing,
	struct arena *a);
enum user_status user_mysql_save(void *state, const struct user_row *rows, size_t n);
enum user_status user_mysql_find(void *state, const char *sql, struct arena *a,
	struct user_row **rows, size_t *n);
void user_mysql_quote(void *state, struct buf *sql, const char *text);

#endif
