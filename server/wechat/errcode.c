#include "wechat/errcode.h"

#include "common/mem.h"

#define IN(api) (1u << (API_##api))
#define TOKEN   IN(STABLE_TOKEN)
#define PHONE   IN(PHONE)
#define KEYS    IN(ENCRYPT_KEY)
#define ANY     (~0u)

/* The first row that fits counts: one call's before any call's. */
static const struct errcode_row errcodes[] = {
	{-1,    ANY,   OC_WECHAT_UNAVAILABLE, ERRCODE_RETRY,  LOG_WARN,  "WeChat is busy"},
	{40001, TOKEN, OC_WECHAT_CONFIG,      ERRCODE_SECRET, LOG_ERROR,
		"wrong AppSecret: check secret in the [app] section, was it reset?"},
	{40001, ANY,   OC_WECHAT_ERROR,       ERRCODE_STALE,  LOG_INFO,
		"the access_token is no longer the newest"},
	{40014, ANY,   OC_WECHAT_ERROR,       ERRCODE_STALE,  LOG_INFO,
		"the access_token is none"},
	{42001, ANY,   OC_WECHAT_ERROR,       ERRCODE_STALE,  LOG_INFO,
		"the access_token has expired"},
	{41001, ANY,   OC_WECHAT_ERROR,       0,              LOG_ERROR,
		"the access_token is missing: is a proxy changing the request?"},
	{45011, ANY,   OC_RATE_LIMITED,       0,              LOG_WARN,
		"WeChat's limit for a minute is reached"},
	{45009, TOKEN, OC_RATE_LIMITED,       ERRCODE_LATER,  LOG_ERROR,
		"WeChat's limit of token calls for the day is reached"},
	{45009, ANY,   OC_RATE_LIMITED,       ERRCODE_LATER,  LOG_ERROR,
		"WeChat's limit for the day is reached"},
	{40029, PHONE, OC_INVALID_CODE,       0,              LOG_INFO,
		"the code is expired, used, or none of the getPhoneNumber button's"},
	{40003, PHONE, OC_WECHAT_ERROR,       0,              LOG_WARN,
		"the code was made by another user than the session's"},
	{40029, ANY,   OC_INVALID_CODE,       0,              LOG_INFO,
		"the code is expired, mistyped, or made by another appid: client and server must "
		"use the same"},
	{40163, ANY,   OC_INVALID_CODE,       0,              LOG_INFO,
		"the code was used before"},
	{41008, ANY,   OC_INVALID_CODE,       0,              LOG_INFO,
		"the code is missing: is a proxy changing the request?"},
	{40226, ANY,   OC_USER_BLOCKED,       0,              LOG_INFO,
		"WeChat holds this user for high risk"},
	{40013, PHONE, OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the code was made by another mini program: does the client run under this appid?"},
	{40013, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"no such appid: check the name of the [app] section"},
	{40125, ANY,   OC_WECHAT_CONFIG,      ERRCODE_SECRET, LOG_ERROR,
		"wrong AppSecret: check secret in the [app] section, was it reset?"},
	{48001, PHONE, OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the app may not ask for phone numbers: it must be verified, see WeChat's console"},
	{48001, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the app may not make this call: see its permissions in WeChat's console"},
	{87007, KEYS,  OC_SESSION_KEY_EXPIRED, 0,             LOG_INFO,
		"the user has no session_key that lives: the mini program must log in again"},
	{87009, KEYS,  OC_SESSION_KEY_EXPIRED, 0,             LOG_INFO,
		"the signature is of another session_key: the mini program must log in again"},
	{87007, ANY,   OC_WECHAT_ERROR,       0,              LOG_INFO,
		"the user has no session_key that lives: the mini program must log in again"},
	{87009, ANY,   OC_WECHAT_ERROR,       0,              LOG_INFO,
		"the signature is of another session_key: the mini program must log in again"},
	{41002, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the appid is empty: check the [app] section"},
	{41004, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the AppSecret is empty: check the [app] section"},
	{40002, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"wrong grant_type: is a proxy changing the request?"},
	{40243, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the AppSecret is frozen: unfreeze it in WeChat's console"},
	{50004, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"this API is forbidden for the account: see WeChat's console"},
	{50007, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the account is frozen: see WeChat's console"},
	{40164, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"this server's address is not on the IP allow-list in WeChat's console"},
	{61004, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"this server's address is not registered with WeChat"},
	{40090, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"WeChat refuses this server's address"},
	{45035, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"this server's address is not on the allow-list"},
	{48017, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"an address of WeChat's that is no longer served: use the host's name"},
	{89503, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the account's administrator must confirm this call"},
	{89506, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the administrator refused this address for 24 hours"},
	{89507, ANY,   OC_WECHAT_CONFIG,      0,              LOG_ERROR,
		"the administrator refused this address for an hour"},
	{40066, ANY,   OC_WECHAT_ERROR,       0,              LOG_ERROR,
		"no such URL at WeChat: check wechat.base_url"},
	{43001, ANY,   OC_WECHAT_ERROR,       0,              LOG_ERROR,
		"WeChat wants GET: is a proxy changing the request?"},
	{43002, ANY,   OC_WECHAT_ERROR,       0,              LOG_ERROR,
		"WeChat wants POST: is a proxy changing the request?"},
	{43003, ANY,   OC_WECHAT_ERROR,       0,              LOG_ERROR,
		"WeChat wants HTTPS: check wechat.base_url"},
};

const struct errcode_row *errcode_find(enum call_api api, int errcode)
{
	static const struct errcode_row other = {0, ANY, OC_WECHAT_ERROR, 0, LOG_ERROR,
		"an errcode not known here: see WeChat's documentation"};

	for (size_t i = 0; i < NELEM(errcodes); i++)
		if (errcodes[i].errcode == errcode && errcodes[i].calls & (1u << api))
			return &errcodes[i];
	return &other;
}
