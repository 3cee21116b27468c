/* Redis' replies: reading them, and the reader that makes them of bytes. */
#ifndef IO_REPLY_H
#define IO_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redisReply; /* hiredis' */
struct redisReader;

enum { REPLY_WORD_MAX = 24, REPLY_SENTENCE_MAX = 160 };

/* Each takes NULL and the wrong type without harm. */
bool        redis_reply_is_nil(const struct redisReply *v);
/* string or status; NULL when it is neither. len may be NULL */
const char *redis_reply_str(const struct redisReply *v, size_t *len);
bool        redis_reply_int(const struct redisReply *v, int64_t *out);
bool        redis_reply_is_array(const struct redisReply *v);
/* elements of an array, else 0 */
size_t      redis_reply_count(const struct redisReply *v);
/* NULL past the end */
const struct redisReply *redis_reply_at(const struct redisReply *v, size_t i);

void reply_free(const struct redisReply *v); /* one that conn_keep_reply kept; NULL is fine */

/* An error's text; NULL when it is none. */
const char *reply_error(const struct redisReply *v);

/* The word that says what kind of error it is ("READONLY"), wherever Redis puts it: Redis 6 wraps
 * the error of a command in a script into an ERR of its own. "TRYAGAIN" also where a script met a
 * slot that is being moved; "?" when there is none. */
void reply_word(const char *error, char word[REPLY_WORD_MAX]);

/* The error's text for the log: cut, printable, without the arguments that Redis quotes and without
 * the secret (NULL = none). */
void reply_sentence(const char *error, const char *secret, char sentence[REPLY_SENTENCE_MAX]);

/* A reader that allocates in proportion to what was received. It refuses an array of more than 4096
 * elements; one inside of another (the keys of an invalidation message) becomes nil instead, and
 * its elements are read and dropped. */
struct redisReader *reply_reader_new(void);
bool reply_is_being_dropped(const struct redisReader *reader); /* what comes now is kept nowhere */

#endif
