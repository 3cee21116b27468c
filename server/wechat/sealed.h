/* Open data that a phone hands on: signed (rawData, signature) or encrypted (encryptedData, iv) by
 * WeChat under the user's session_key. Pure functions. Rules:
 * developers.weixin.qq.com/miniprogram/dev/framework/open-ability/signature.html */
#ifndef WECHAT_SEALED_H
#define WECHAT_SEALED_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "common/arena.h"

/* signature is the lower-case hex of SHA-1(raw_data + session_key), session_key as text. */
bool sealed_signature_ok(const char *session_key, const char *raw_data, const char *signature);

/* The decrypted JSON object, or NULL: wrong key, wrong data or wrong app, which are not told apart
 * (a padding oracle would be one more way in). Base64 whose + a form has turned into a blank is
 * mended. The caller frees it with json_free. */
cJSON *sealed_open(struct arena *a, const char *session_key, const char *encrypted_data,
	const char *iv, const char *appid);

#endif
