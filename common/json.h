/* JSON in and out over cJSON, with what cJSON lets pass shut out: invalid UTF-8, NUL (raw or
 * \u0000), bytes after the value, duplicate top-level members, depth over 32.
 *
 * A json_parse tree is wiped and freed by json_free: strings in it may be secrets. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "common/arena.h"
#include "common/buf.h"

cJSON *json_parse(const char *text, size_t n); /* NULL when it is not strict JSON */
void   json_free(cJSON *tree);                 /* wipes strings; NULL is fine */

/* Members of an object. false/NULL: there, but of another type or out of bounds, is told apart from
 * "not there". */
enum json_get { JSON_ABSENT, JSON_BAD, JSON_GOT };
/* borrowed; null is ABSENT */
enum json_get json_str(
	const cJSON *obj, const char *key, size_t min_bytes, size_t max_bytes, const char **out);
/* a whole number */
enum json_get json_int(const cJSON *obj, const char *key, int64_t min, int64_t max, int64_t *out);

char *json_print(struct arena *a, const cJSON *tree); /* compact text in the arena */

/* Writing piece by piece into a buf. Commas are put where they belong. key is NULL for the
 * outermost value and within a list; keys are constants that need no escaping. */
void json_open(struct buf *b, const char *key, char bracket); /* '{' or '[' */
void json_close(struct buf *b, char bracket);                 /* '}' or ']' */
void json_add_str(struct buf *b, const char *key, const char *value); /* NULL gives null */
void json_add_int(struct buf *b, const char *key, int64_t value);
void json_add_bool(struct buf *b, const char *key, bool value);

#endif
