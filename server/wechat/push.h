/* WeChat's message push: who sent a message, what is in it, and how the answer is encrypted.
 *
 * Pure functions: no sockets, no clock. They take bytes from anybody and never abort on them.
 * Rules: developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html */
#ifndef WECHAT_PUSH_H
#define WECHAT_PUSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"

#define PUSH_AES_KEY_LEN    43 /* characters of EncodingAESKey */
#define PUSH_RANDOM_LEN     16 /* random bytes in front of an encrypted message */
#define PUSH_SIGNATURE_SIZE 41 /* a signature in hex, with its NUL */

struct push_key { uint8_t bytes[32]; };

/* Reads an EncodingAESKey as the console shows it. The last two bits of its last character do not
 * count: 43 characters hold 258 bits. false: not 43 characters of base64. */
bool push_key_read(struct push_key *out, const char *text);

/* signature is the lower-case hex of SHA-1 over token, timestamp, nonce and, where it is not NULL,
 * the Encrypt field, sorted as texts and joined. Compared in constant time. */
bool push_signature_ok(const char *signature, const char *token, const char *timestamp,
	const char *nonce, const char *encrypt);
void push_sign(char out[PUSH_SIGNATURE_SIZE], const char *token, const char *timestamp,
	const char *nonce, const char *encrypt);

/* Opens an Encrypt field. The message, NUL-terminated, with its length in *len, in the arena. NULL:
 * not sealed under this key, not whole, or for another app. */
char *push_open(struct arena *a, const struct push_key *key, const char *appid, const char *encrypt,
	size_t *len);

/* The Encrypt field of an answer, in the arena. random: fresh for each call. */
char *push_seal(struct arena *a, const struct push_key *key, const char *appid,
	const uint8_t random[PUSH_RANDOM_LEN], const void *message, size_t len);

/* What is read of a message: the top-level fields that we act on. A field that is absent is NULL.
 * JSON and XML use the same names; a number in JSON is given as its digits. */
enum push_format { PUSH_JSON, PUSH_XML };
struct push_message {
	enum push_format format;
	const char *encrypt;      /* Encrypt: the message proper, sealed */
	const char *msg_type;     /* MsgType */
	const char *event;        /* Event */
	const char *openid;       /* OpenID: whom an event is about (FromUserName is not that) */
	const char *from;         /* FromUserName: who sent a message that is no event */
	const char *appid;        /* AppID */
	/* RevokeInfo: what consent was withdrawn, numbers separated by commas */
	const char *revoke_info;
	const char *create_time;  /* CreateTime: seconds since 1970 */
};

/* Reads a body, JSON when its first character is '{', else XML. The texts are in the arena. false:
 * neither strict JSON nor XML of one level in UTF-8. XML with a DTD is refused, and with it every
 * entity but the five of XML itself. */
bool push_read(struct arena *a, const char *body, size_t len, struct push_message *out);

#endif
