/* What can come of a call: the one list behind the enum, the HTTP status, the "error" a caller
 * sees, the metric label and the documentation's table (test_outcome holds docs/http-api.md against
 * it). */
#ifndef COMMON_OUTCOME_H
#define COMMON_OUTCOME_H

/* name, HTTP status, error code, seconds for Retry-After where waiting helps, sentence for a
 * developer. PENDING must never reach a caller. */
#define OUTCOMES(X) \
	X(OK,                   200, "ok",                   0,  "Done.") \
	X(PENDING,              500, "internal",             0,  "The server lost track of this request.") \
	X(INVALID_REQUEST,      400, "invalid_request",      0,  "The request is not valid.") \
	X(UNKNOWN_APP,          400, "unknown_app",          0,  "This appid is not configured here.") \
	X(DECRYPT_FAILED,       400, "decrypt_failed",       0,  "encryptedData does not decrypt under this session's key.") \
	X(SIGNATURE_MISMATCH,   400, "signature_mismatch",   0,  "signature is not SHA-1(rawData + session_key).") \
	X(INVALID_CODE,         401, "invalid_code",         0,  "WeChat refuses this code: call wx.login again for a fresh one.") \
	X(INVALID_SESSION,      401, "invalid_session",      0,  "This session does not live: log in again.") \
	X(UNAUTHORIZED,         401, "unauthorized",         0,  "This call needs the internal token.") \
	X(FORBIDDEN,            403, "forbidden",            0,  "This call is not answered under this Host or for this Origin.") \
	X(BAD_SIGNATURE,        403, "bad_signature",        0,  "This message is not signed with the app's push_token, or is too old.") \
	X(USER_BLOCKED,         403, "user_blocked",         0,  "This user may not log in: blocked here, or held for high risk by WeChat.") \
	X(NOT_FOUND,            404, "not_found",            0,  "There is nothing at this address.") \
	X(METHOD_NOT_ALLOWED,   405, "method_not_allowed",   0,  "This address does not take this method.") \
	X(TIMEOUT,              408, "timeout",              0,  "The request did not arrive in time.") \
	X(SESSION_KEY_EXPIRED,  409, "session_key_expired",  0,  "The user's session_key has ended: the mini program must log in again.") \
	X(TOO_LARGE,            413, "too_large",            0,  "The body is larger than max_body.") \
	X(URI_TOO_LONG,         414, "uri_too_long",         0,  "The request line is too long.") \
	X(RATE_LIMITED,         429, "rate_limited",         60, "Too many calls: wait before the next.") \
	X(HEADERS_TOO_LARGE,    431, "headers_too_large",    0,  "The request's headers are too large or too many.") \
	X(NOT_IMPLEMENTED,      501, "not_implemented",      0,  "This method or transfer coding is not known here.") \
	X(WECHAT_ERROR,         502, "wechat_error",         0,  "WeChat refused the call (errcode says why), or its answer cannot be read.") \
	X(WECHAT_CONFIG,        502, "wechat_config",        0,  "WeChat refuses this app's configuration: see the server's log.") \
	X(WECHAT_UNAVAILABLE,   503, "wechat_unavailable",   1,  "WeChat gave no answer in time: try again.") \
	X(STORE_UNAVAILABLE,    503, "store_unavailable",    1,  "The session store cannot answer: try again.") \
	X(BACKEND_UNAVAILABLE,  503, "backend_unavailable",  1,  "The backend (push_forward) gave no answer in time: send the message again.") \
	X(OVERLOADED,           503, "overloaded",           1,  "The server is full: try again.") \
	X(BAD_VERSION,          505, "http_version",         0,  "Only HTTP/1.0 and HTTP/1.1 are spoken here.")

enum outcome {
#define X(name, ...) OC_##name,
	OUTCOMES(X)
#undef X
	OC_COUNT
};

int         outcome_status(enum outcome oc); /* the HTTP status */
/* "invalid_code": the "error" member and the metric label */
const char *outcome_code(enum outcome oc);
int         outcome_retry_after_s(enum outcome oc); /* 0: waiting does not help */
const char *outcome_text(enum outcome oc);   /* one sentence for a developer */

#endif
