/* [limit]: how much one caller may ask. Buckets are shared by the workers of a machine. */
#ifndef API_LIMIT_H
#define API_LIMIT_H

#include "api/api.h"
#include "api/guard.h"

enum { LIMIT_REFUSED_COSTS = 10 }; /* logins, for a code that WeChat refuses */

/* One login. 0, or the seconds until it may be asked again. */
int  limit_login(struct api *api, struct req *r, const struct client *c, const char *appid);
void limit_login_refused(struct api *api, const struct client *c); /* WeChat refused its code */

/* One call of a user; name: of the key in [limit]. false: it is too much, and the request is
 * answered. */
bool limit_user(struct api *api, struct req *r, const char *name, const struct bucket_limit *limit,
	const char *appid, const char *openid);

#endif
