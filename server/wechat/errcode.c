#include "wechat/errcode.h"

#include "common/mem.h"

static const struct errcode_row errcodes[] = {
	{-1,    OC_WECHAT_UNAVAILABLE, ERRCODE_RETRY, LOG_WARN,  "WeChat is busy"},
	{40001, OC_WECHAT_ERROR,       ERRCODE_STALE, LOG_INFO,  "the access_token is no longer the newest"},
	{40014, OC_WECHAT_ERROR,       ERRCODE_STALE, LOG_INFO,  "the access_token is none"},
	{42001, OC_WECHAT_ERROR,       ERRCODE_STALE, LOG_INFO,  "the access_token has expired"},
	{41001, OC_WECHAT_ERROR,       0,             LOG_ERROR, "the access_token is missing: is a proxy changing the request?"},
	{45011, OC_RATE_LIMITED,       0,             LOG_WARN,  "WeChat's limit for a minute is reached"},
	{45009, OC_RATE_LIMITED,       ERRCODE_LATER, LOG_ERROR, "WeChat's limit for the day is reached"},
	{40029, OC_INVALID_CODE,       0,             LOG_INFO,  "the code is expired, mistyped, or made by another appid: client and server must use the same"},
	{40163, OC_INVALID_CODE,       0,             LOG_INFO,  "the code was used before"},
	{41008, OC_INVALID_CODE,       0,             LOG_INFO,  "the code is missing"},
	{40226, OC_USER_BLOCKED,       0,             LOG_INFO,  "WeChat holds this user for high risk"},
	{40013, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "no such appid: check the name of the [app] section"},
	{40125, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "wrong AppSecret: check secret in the [app] section, was it reset?"},
	{41002, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the appid is empty: check the [app] section"},
	{41004, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the AppSecret is empty: check the [app] section"},
	{40002, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "wrong grant_type: is a proxy changing the request?"},
	{40243, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the AppSecret is frozen: unfreeze it in WeChat's console"},
	{50004, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "this API is forbidden for the account: see WeChat's console"},
	{50007, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the account is frozen: see WeChat's console"},
	{40164, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "this server's address is not on the IP allow-list in WeChat's console"},
	{61004, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "this server's address is not registered with WeChat"},
	{40090, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "WeChat refuses this server's address"},
	{45035, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "this server's address is not on the allow-list"},
	{48017, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "an address of WeChat's that is no longer served: use the host's name"},
	{89503, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the account's administrator must confirm this call"},
	{89506, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the administrator refused this address for 24 hours"},
	{89507, OC_WECHAT_CONFIG,      0,             LOG_ERROR, "the administrator refused this address for an hour"},
	{40066, OC_WECHAT_ERROR,       0,             LOG_ERROR, "no such URL at WeChat: check wechat.base_url"},
	{43001, OC_WECHAT_ERROR,       0,             LOG_ERROR, "WeChat wants GET: is a proxy changing the request?"},
	{43002, OC_WECHAT_ERROR,       0,             LOG_ERROR, "WeChat wants POST: is a proxy changing the request?"},
	{43003, OC_WECHAT_ERROR,       0,             LOG_ERROR, "WeChat wants HTTPS: check wechat.base_url"},
};

const struct errcode_row *errcode_find(int errcode)
{
	static const struct errcode_row other = {0, OC_WECHAT_ERROR, 0, LOG_ERROR, "an errcode not known here"};

	for (size_t i = 0; i < NELEM(errcodes); i++)
		if (errcodes[i].errcode == errcode)
			return &errcodes[i];
	return &other;
}
