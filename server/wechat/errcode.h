/* WeChat's errcodes: what each means for the caller and for us, and in which call. One table, from
 * the error tables of code2Session, getStableAccessToken, checkSessionKey and getPhoneNumber
 * (developers.weixin.qq.com/miniprogram/dev/server/API/). */
#ifndef WECHAT_ERRCODE_H
#define WECHAT_ERRCODE_H

#include "common/log.h"
#include "common/outcome.h"

enum call_api {
	API_JSCODE2SESSION,
	API_STABLE_TOKEN,
	API_CHECKSESSION,
	API_PHONE,
	API_ENCRYPT_KEY,
	API_PASS,
	API_COUNT
};

enum errcode_flags {
	ERRCODE_RETRY = 1, /* the same request may be sent again, soon */
	ERRCODE_STALE = 2, /* the access_token is no good: renew it, and ask once more */
	ERRCODE_LATER = 4, /* waiting helps, but for an hour rather than a minute */
	ERRCODE_SECRET = 8, /* the AppSecret is wrong: the app's other one may be right */
};

struct errcode_row {
	int            errcode;
	unsigned       calls; /* those in which it means this, a bit each */
	enum outcome   oc;
	unsigned       flags;
	enum log_level level;
	const char    *mend;  /* for the operator: what it means, and what to do */
};

/* never NULL: what is not in the table is WECHAT_ERROR */
const struct errcode_row *errcode_find(enum call_api api, int errcode);

#endif
