/* hiredis' reader builds replies by functions that can be replaced. Ours keep a short line from
 * buying gigabytes. */
#include "io/reply.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "common/mem.h"

enum { ELEMENTS_MAX = 4096 };

/* hiredis allocates an array when it is announced. */
#if HIREDIS_MAJOR >= 1
typedef size_t array_len;
#else
typedef int array_len;
#endif

static redisReplyObjectFunctions bounded;
static redisReplyObjectFunctions unbounded;
/* stands for each element of an array that became nil; never freed */
static redisReply dropped = {.type = REDIS_REPLY_NIL};

static bool parent_is_nil(const redisReadTask *task)
{
	return task->parent && ((const redisReply *)task->parent->obj)->type == REDIS_REPLY_NIL;
}

static void *bounded_array(const redisReadTask *task, array_len n)
{
	if (parent_is_nil(task))
		return NULL; /* three levels deep: nothing of Redis' looks so */
	if (n <= ELEMENTS_MAX)
		return unbounded.createArray(task, n);
	return task->parent ? unbounded.createNil(task) : NULL;
}

static void *bounded_string(const redisReadTask *task, char *s, size_t n)
{
	return parent_is_nil(task) ? &dropped : unbounded.createString(task, s, n);
}

static void *bounded_integer(const redisReadTask *task, long long n)
{
	return parent_is_nil(task) ? &dropped : unbounded.createInteger(task, n);
}

static void *bounded_nil(const redisReadTask *task)
{
	return parent_is_nil(task) ? &dropped : unbounded.createNil(task);
}

#if HIREDIS_MAJOR >= 1
static void *bounded_double(const redisReadTask *task, double d, char *s, size_t n)
{
	return parent_is_nil(task) ? &dropped : unbounded.createDouble(task, d, s, n);
}

static void *bounded_bool(const redisReadTask *task, int b)
{
	return parent_is_nil(task) ? &dropped : unbounded.createBool(task, b);
}
#endif

struct redisReader *reply_reader_new(void)
{
	redisReader *reader = redisReaderCreate();

	if (!reader)
		abort(); /* out of memory */
	if (!unbounded.createArray) {
		unbounded = bounded = *reader->fn;
		bounded.createArray = bounded_array;
		bounded.createString = bounded_string;
		bounded.createInteger = bounded_integer;
		bounded.createNil = bounded_nil;
#if HIREDIS_MAJOR >= 1
		bounded.createDouble = bounded_double;
		bounded.createBool = bounded_bool;
#endif
	}
	reader->fn = &bounded;
	return reader;
}

bool reply_is_being_dropped(const struct redisReader *reader)
{
#if HIREDIS_MAJOR >= 1
	return reader->ridx > 0 && parent_is_nil(reader->task[reader->ridx]);
#else
	return reader->ridx > 0 && parent_is_nil(&reader->rstack[reader->ridx]);
#endif
}

void reply_free(const struct redisReply *v)
{
	if (v)
		freeReplyObject((void *)v);
}

/* --- errors --- */

const char *reply_error(const struct redisReply *v)
{
	return v && v->type == REDIS_REPLY_ERROR ? v->str : NULL;
}

static size_t capitals(const char *s)
{
	size_t n = 0;

	while (isupper((unsigned char)s[n]) || isdigit((unsigned char)s[n]) || s[n] == '_')
		n++;
	return n;
}

/* What Redis says of a script that failed, where it does not repeat the word of the command's
 * error. */
static const char *word_in_prose(const char *error)
{
	static const struct { const char *prose, *word; } known[] = {
		{"attempted to access a non local key", "TRYAGAIN"},
		{"undeclared keys were accessed during rehashing", "TRYAGAIN"},
		{"ACL failure in script", "NOPERM"},
		{"The user executing the script", "NOPERM"},
	};

	for (size_t i = 0; i < NELEM(known); i++)
		if (strstr(error, known[i].prose))
			return known[i].word;
	return NULL;
}

/* "ERR Error running script (call to f_…): @user_script:1: @user_script: 1: -READONLY You can't
 * write …" */
static const char *word_in_script_error(const char *error)
{
	const char *p = error;

	while ((p = strstr(p, ": -")))
		if (capitals(p += 3) > 2)
			return p;
	return word_in_prose(error);
}

void reply_word(const char *error, char word[REPLY_WORD_MAX])
{
	const char *at = error, *inner;
	size_t n;

	if (!strncmp(error, "ERR ", 4) && (inner = word_in_script_error(error)))
		at = inner;
	n = capitals(at);
	if (n >= REPLY_WORD_MAX)
		n = REPLY_WORD_MAX - 1;
	memcpy(word, at, n);
	word[n] = '\0';
	if (n == 0)
		strcpy(word, "?");
}

void reply_sentence(const char *error, const char *secret, char sentence[REPLY_SENTENCE_MAX])
{
	const char *quoted = strstr(error, "with args beginning");
	size_t n = quoted ? (size_t)(quoted - error) : strlen(error);

	if (secret && *secret && strstr(error, secret))
		n = capitals(error);
	if (n >= REPLY_SENTENCE_MAX)
		n = REPLY_SENTENCE_MAX - 1;
	memcpy(sentence, error, n);
	while (n > 0 && strchr(" ,\r\n", sentence[n - 1]))
		n--;
	sentence[n] = '\0';
}

/* --- reading --- */

bool redis_reply_is_nil(const struct redisReply *v)
{
	return v && v->type == REDIS_REPLY_NIL;
}

const char *redis_reply_str(const struct redisReply *v, size_t *len)
{
	bool is = v && (v->type == REDIS_REPLY_STRING || v->type == REDIS_REPLY_STATUS);

	if (len)
		*len = is ? v->len : 0;
	return is ? v->str : NULL;
}

bool redis_reply_int(const struct redisReply *v, int64_t *out)
{
	if (!v || v->type != REDIS_REPLY_INTEGER)
		return false;
	*out = v->integer;
	return true;
}

bool redis_reply_is_array(const struct redisReply *v)
{
	return v && v->type == REDIS_REPLY_ARRAY;
}

size_t redis_reply_count(const struct redisReply *v)
{
	return v && v->type == REDIS_REPLY_ARRAY ? v->elements : 0;
}

const struct redisReply *redis_reply_at(const struct redisReply *v, size_t i)
{
	return i < redis_reply_count(v) ? v->element[i] : NULL;
}
