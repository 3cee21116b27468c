/* One call of WeChat's, and how its answer is written: refuse(), or ok_begin(), its members,
 * ok_end(). */
#ifndef WXFAKE_ANSWER_H
#define WXFAKE_ANSWER_H

#include "fake.h"

struct call {
	struct fake   *f;
	struct req    *r;
	enum api       api;
	unsigned       shapes;
	struct answer *out;
	struct app    *app;
};

void refuse(struct call *c, int errcode);
void ok_begin(struct call *c, bool with_errcode);
void ok_key(struct call *c, const char *key);
void ok_str(struct call *c, const char *key, const char *value);
void ok_int(struct call *c, const char *key, int64_t value);
void ok_end(struct call *c, bool with_errcode);

#endif
