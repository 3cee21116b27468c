/* What the audit log is told of a request. */
#ifndef API_RECORD_H
#define API_RECORD_H

#include "api/api.h"
#include "http/req.h"
#include "store/audit.h"

/* Queues a line about what this request did, before it is answered. Fills in who asked (X-Wx-Actor,
 * the client's address) and the request's id. result NULL: "ok". Does nothing without an audit log.
 */
void record(struct api *api, struct req *r, struct audit_line line);

/* The same, once the request is answered with success (also when the caller has gone by then); an
 * answer that refuses leaves no line. One for each request. appid and openid are copied. */
void record_success(struct api *api, struct req *r, enum audit_event event, enum audit_by by,
	const char *appid, const char *openid);

#endif
