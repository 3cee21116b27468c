/* The end of a user: what the mini program, a backend and WeChat may ask for. */
#ifndef API_ERASE_H
#define API_ERASE_H

#include "api/api.h"

/* A mark in Redis that keeps new sessions away, then the user database, then all sessions with
 * their session_keys. OC_OK: nothing is left but a block. Else it may have gone part of the way;
 * the mark ends by itself, and a repeat finishes. It goes on when the caller has gone. */
void erase_user(
	struct api *api, const char *appid, const char *openid, session_done_cb cb, void *ctx);

#endif
