/* wxfake: a stand-in for the WeChat servers, for development, tests and load; never part of
 * production.
 *
 * main.c reads argv and routes; state.c knows apps, users, codes and tokens; wechat.c decides as
 * WeChat does, and answer.c writes its answers; fault.c lets answers misbehave on their way out;
 * control.c is the /fake side; events.c tells the browser what happened, monitor.c what Redis is
 * told, group.c who is master there; page.c gives the browser its page, and backend.c plays the
 * team's backend for it. */
#ifndef WXFAKE_FAKE_H
#define WXFAKE_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "common/buf.h"
#include "common/mem.h"
#include "http/req.h"
#include "io/loop.h"

#define CODE_LIFE_MS    (300 * 1000)
#define OVERLAP_MS \
	(300 * 1000) /* how long a replaced access_token still works, and the least that is left \
			of one handed out */
#define FORCE_APART_MS  (30 * 1000)
#define FORCE_PER_DAY   20
#define TOKENS_PER_DAY  2000
#define USER_PER_MINUTE 100
#define APPS_MAX        64
#define USERS_MAX       1000000
#define CODES_MAX       1000000
#define FAULTS_MAX      64
#define SUBSCRIBERS_MAX 16
#define OPENID_MAX      128
#define KEY_TEXT        25 /* base64 of 16 bytes, with its NUL */
#define MASK(bit)       (1u << (bit))

enum api {
	API_JSCODE2SESSION,
	API_TOKEN,
	API_STABLE_TOKEN,
	API_CHECKSESSION,
	API_RESETUSERSESSIONKEY,
	API_GETUSERPHONENUMBER,
	API_GETUSERENCRYPTKEY,
	API_XPAY_BALANCE,
	API_XPAY_PAY,
	API_XPAY_CANCEL,
	API_OTHER,
	API_COUNT
};
const char *api_name(enum api api);
bool        api_by_name(const char *name, enum api *out);

/* A table by string, with the order of coming: past its bound the oldest entry is forgotten. */
struct entry {
	struct entry *chain, *older, *newer;
	char         *key; /* owned */
};
struct table {
	struct entry **slots;
	struct entry  *oldest, *newest;
	size_t         nslots, count, max;
};
void          table_init(struct table *t, size_t max);
struct entry *table_find(const struct table *t, const char *key);
/* zeroed, size bytes; the key is not there yet */
struct entry *table_add(struct table *t, const char *key, size_t size);
void          table_free(struct table *t);

struct token {
	char    text[160];
	int64_t ends_ms; /* 0 = never was */
};
struct token_kind { /* cgi-bin/token and stable_token know nothing of each other */
	struct token now, before;
	int64_t      forced_ms;
	int          day_count;
	int64_t      day;
};
struct app {
	char             *appid, *secret;
	struct token_kind plain, stable;
};

#define ORDER_MAX  64
#define ORDERS_MAX 16
struct order {
	char    id[ORDER_MAX + 1];
	int64_t amount; /* what may be given back yet */
};

struct user { /* entry.key is "appid openid" */
	struct entry e;
	char         key[KEY_TEXT];
	char         unionid[OPENID_MAX + 1]; /* "" = not bound to an open platform */
	char         phone[24], country[8];
	bool         blocked;
	/* what wx.checkSession says: true from wx.login on, until the session_key dies */
	bool         alive;
	int64_t      minute;
	int          minute_count;
	int          key_version; /* of the newest encryption key; the two before it are told too */
	int64_t      balance;
	struct order orders[ORDERS_MAX];
	int          order_next;
};

enum code_kind { CODE_LOGIN, CODE_PHONE };
struct code { /* entry.key is the code */
	struct entry   e;
	enum code_kind kind;
	struct app    *app;
	bool           used;
	int64_t        made_ms;
	char           openid[OPENID_MAX + 1];
};

struct fault;
struct serving;
struct subscriber;
struct monitor;
struct question;
struct server;
struct conn_options;

struct fake {
	struct loop  *loop;
	struct app    apps[APPS_MAX];
	int           app_count;
	struct table  users, codes;
	uint8_t       seed[32]; /* session keys and unionids that nobody stores are made from it */
	const char   *push_token, *push_aes_key; /* of messages to wxlogind */
	const char   *push_to; /* where they go; NULL = where the page finds wxlogind */
	struct pushed *pushes;  /* that wait for an answer */
	const char   *app_key;  /* of virtual payment: pay_sig is checked; NULL = not */
	bool          any_code;
	bool          rotate;   /* every login's exchange makes a new session_key */
	int64_t       latency_ms, token_life_s, rate_per_minute;
	uint64_t      calls[API_COUNT], faulted;
	struct fault *faults;   /* in the order they play */
	struct serving *servings; /* answers that take their time */
	struct subscriber *subs[SUBSCRIBERS_MAX];
	struct timer *beat;
	struct monitor *monitors; /* one for each server that is watched */
	bool          kill_redis; /* the page may end a master among them */
	struct server *servers;  /* they again, where it may */
	struct timer *roles;
	uint64_t      used;      /* how many commands they were told */
	uint64_t      served;  /* the number of the last call, which its events carry */
	/* wxlogind's internal side, for the page; "" = not told */
	char          internal_host[128];
	int           internal_port;
	const char   *internal_token;     /* or NULL */
	struct question *questions;       /* to it, that wait for an answer */
	/* where the page finds it: "http://host:port", NULL = port 8080 of the page's own host */
	const char   *wxlogind;
};

/* state.c */
void         state_init(struct fake *f);
void         state_free(struct fake *f);
bool         state_add_app(struct fake *f, const char *appid, const char *secret);
struct app  *state_app(struct fake *f, const char *appid);
bool         openid_ok(const char *s);
/* The user, made if there is none. */
struct user *user_get(struct fake *f, const struct app *a, const char *openid);
/* NULL when unknown; --any-code knows everyone */
struct user *user_find(struct fake *f, const struct app *a, const char *openid);
const char  *user_openid(const struct user *u);
void         user_new_key(struct user *u);
/* counts; false past the minute's share */
bool         user_may_call(struct fake *f, struct user *u);
void         random_openid(char out[29]);
void         openid_of_code(char out[29], const struct app *a, const char *code, size_t len);
struct code *code_make(struct fake *f, struct app *a, const char *openid, enum code_kind kind);
enum code_state { CODE_GOOD, CODE_USED, CODE_UNKNOWN };
enum code_state code_look(struct fake *f, const struct app *a, const char *text,
	enum code_kind kind, struct code **out);
enum token_state { TOKEN_GOOD, TOKEN_EXPIRED, TOKEN_UNKNOWN };
enum token_state token_look(struct fake *f, const char *text, struct app **app);
void         token_renew(struct fake *f, struct token_kind *k, bool at_once);
/* counts; false past the day's share */
bool         token_day_share(struct token_kind *k, int per_day);
void         token_expire(struct app *a);

/* wechat.c: what WeChat would say. Shapes bend the text without changing what happened. */
enum shape {
	SHAPE_UNESCAPED,
	SHAPE_ERRCODE0,
	SHAPE_QUOTED,
	SHAPE_OLD_HINTS,
	SHAPE_EXTRA,
	SHAPE_MISSING,
	SHAPE_EMPTY_FIELDS,
	SHAPE_EXPIRES_IN,
	SHAPE_BOM,
	SHAPE_TRUNCATED,
	SHAPE_COUNT,
};
struct answer {
	int         errcode;
	const char *type; /* content type */
	char        code[5]; /* what an event may show of the code */
	char        appid[24];
	struct buf  body;
};
enum api wechat_api(const char *path);
void wechat_answer(
	struct fake *f, struct req *r, enum api api, unsigned shapes, struct answer *out);
void wechat_refuse(struct req *r, enum api api, int errcode, unsigned shapes, struct answer *out);

/* xpay.c: 0 with further members in b, or the errcode. */
int xpay(enum api api, struct user *u, const cJSON *o, struct buf *b);

/* fault.c */
/* one WeChat call, faults and latency included */
void  fault_serve(struct fake *f, struct req *r, enum api api);
bool  fault_add(struct fake *f, const cJSON *o, char *err, size_t err_len);
int   fault_clear(struct fake *f, const char *api); /* NULL = all; how many went */
void  fault_end(struct fake *f); /* lets go of the answers under way; after http_free */
void  fault_list(struct fake *f, struct buf *out);

/* control.c */
void control_handle(struct fake *f, struct req *r);

/* events.c */
void events_subscribe(struct fake *f, struct req *r);
/* one whole event, to everybody who listens */
void events_tell(struct fake *f, const char *p, size_t n);
/* how an event's data begins: {"at":<ms, with microseconds> */
void events_at(struct buf *b, int64_t wall_us);
void events_call(struct fake *f, uint64_t id, enum api api, const struct answer *a, int status,
	const char *fault);
void events_answered(struct fake *f, uint64_t id);         /* or given up */
void events_free(struct fake *f);

/* monitor.c */
/* url: redis://…, also of several ports (6379-6381), each a server */
bool monitor_start(struct fake *f, const char *url, char *err, size_t err_len);
void monitor_free(struct fake *f);

/* group.c */
struct server *group_add(struct fake *f, const struct conn_options *where); /* a server of it */
void group_used(struct server *s); /* by wxlogind, now */
void group_tell(struct fake *f, struct req *r, const cJSON *o); /* GET /fake/redis */
void group_kill(struct fake *f, struct req *r, const cJSON *o); /* POST /fake/kill-redis */
void group_free(struct fake *f); /* before http_free: answers what waits */

/* backend.c */
bool backend_at(struct fake *f, const char *url); /* what --internal takes */
void backend_call(struct fake *f, struct req *r, const cJSON *o);
void backend_users(struct fake *f, struct req *r, const cJSON *o);
void backend_end(struct fake *f); /* lets go of what waits; after http_free */

/* push.c */
void push_send(struct fake *f, struct req *r, struct app *app, const cJSON *o);
void pushes_end(struct fake *f); /* lets go of what waits; after http_free */

/* page.c */
bool page_server_ok(const char *url); /* what --wxlogind takes */
bool page_handle(struct fake *f, struct req *r); /* false: no file of the page */
void page_about(struct fake *f, struct req *r);  /* GET /fake/about */

#endif
