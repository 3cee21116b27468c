/* The only list of URLs: side, method, path, handler, flags. */
#ifndef API_ROUTES_H
#define API_ROUTES_H

#include "api/api.h"

enum side { SIDE_PUBLIC, SIDE_INTERNAL };

enum route_flags {
	ROUTE_BELOW = 1, /* also everything below path + "/" */
	ROUTE_OPEN = 2,  /* internal, but asks for no internal token: probes have none */
	/* Authorization carries a third_session, so the internal token comes in X-Internal-Token
	 * only. Where no token is set, proxies ask with their caller's Host: it is not looked at */
	ROUTE_SESSION = 4,
	/* holds nothing secret, and browsers send no token for it; else as the others: where none
	 * is set, Host is looked at */
	ROUTE_PAGE = 16,
	/* the internal token may also be the password of Basic, as Spring Security sends it */
	ROUTE_BASIC = 8,
};

struct route {
	enum side side;
	unsigned  methods; /* METHOD_BITs */
	const char *path;  /* {name} stands for one segment; also the label in logs and metrics */
	void (*handle)(struct api *api, struct req *r);
	unsigned  flags;
};

/* The route of a path. NULL with *allowed = 0: no such path; NULL otherwise: the methods that it
 * takes. HEAD goes wherever GET does. */
const struct route *route_find(enum side side, enum method m, const char *path, unsigned *allowed);

/* What stands in the request's path for the n-th {name} of its route: decoded, not empty; NULL when
 * it does not decode. */
const char *route_segment(struct req *r, int n);
/* What stands below the route, raw and without its first slash; "" when nothing does. */
const char *route_rest(struct req *r);

/* The handlers, by file. */
void login_handle(struct api *api, struct req *r);          /* login.c */
void session_get_handle(struct api *api, struct req *r);    /* session.c */
void session_delete_handle(struct api *api, struct req *r);
void user_get_handle(struct api *api, struct req *r);       /* user.c */
void user_put_handle(struct api *api, struct req *r);
void user_inside_handle(struct api *api, struct req *r);
void user_import_handle(struct api *api, struct req *r);
void user_delete_handle(struct api *api, struct req *r);    /* erase.c */
void user_erase_inside_handle(struct api *api, struct req *r);
void users_list_handle(struct api *api, struct req *r);     /* people.c */
void user_export_handle(struct api *api, struct req *r);
void user_block_handle(struct api *api, struct req *r);
void user_unblock_handle(struct api *api, struct req *r);
void phone_handle(struct api *api, struct req *r);          /* phone.c */
void open_data_handle(struct api *api, struct req *r);      /* opendata.c */
void push_prove_handle(struct api *api, struct req *r);     /* push.c */
void push_handle(struct api *api, struct req *r);
void auth_handle(struct api *api, struct req *r);           /* internal.c */
void introspect_handle(struct api *api, struct req *r);
void console_handle(struct api *api, struct req *r);        /* console.c */
void sign_handle(struct api *api, struct req *r);           /* sign.c */
void encrypt_keys_handle(struct api *api, struct req *r);
void sessions_get_handle(struct api *api, struct req *r);   /* operator.c */
void sessions_delete_handle(struct api *api, struct req *r);
void sessions_delete_one_handle(struct api *api, struct req *r);
void access_token_handle(struct api *api, struct req *r);   /* backend.c */
void pass_handle(struct api *api, struct req *r);
void healthz_handle(struct api *api, struct req *r);        /* ops.c */
void readyz_handle(struct api *api, struct req *r);
void readyz_public_handle(struct api *api, struct req *r);
void metrics_handle(struct api *api, struct req *r);

#endif
