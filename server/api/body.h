/* The one reader of a JSON body. */
#ifndef API_BODY_H
#define API_BODY_H

#include "common/json.h"
#include "http/req.h"

/* The body as a JSON object, to be ended by json_free; or NULL, with *wrong the sentence for the
 * caller. */
cJSON *body_object(struct req *r, const char **wrong);

/* A text member that a call takes. Where it is absent (or null) *out stays as it was. */
struct body_text {
	const char  *name;
	size_t       min_bytes, max_bytes;
	bool         required;
	/* for the caller, when it is missing, of another type or out of bounds */
	const char  *wrong;
	const char **out;   /* copied into the request's arena */
};

/* Reads n members; what is wrong with the body, or NULL. Members that are not named are passed
 * over. */
const char *body_texts(struct req *r, const struct body_text *texts, size_t n);

#endif
