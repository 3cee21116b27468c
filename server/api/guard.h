/* What stands before a handler: the internal token, CORS, and the third_session a request carries. */
#ifndef API_GUARD_H
#define API_GUARD_H

#include "api/routes.h"

/* Each answers the request itself when it returns false. */
bool guard_internal(const struct api *api, struct req *r, const struct route *rt);
bool guard_cors(const struct api *api, struct req *r); /* false: it was a preflight */

/* The request's well-formed third_session (borrowed), or NULL with *reason "missing" or "malformed". */
const char *guard_token(struct req *r, const char **reason);

/* What became of the question after a session, when it is not that it lives. INVALID_SESSION: 401 with the reason and WWW-Authenticate
 * (RFC 6750); else the outcome's own answer. */
void guard_reply_no_session(struct req *r, enum outcome oc, const char *reason);

#endif
