#include "api/limit.h"

#include <string.h>

#include "common/crypt.h"
#include "common/log.h"

enum { V6_SUBSCRIBER = 8, V6_SITE = 6 }; /* bytes of an IPv6 address: a /64, a /48 */

static int told(struct req *r, const char *which, int64_t wait_ms)
{
	req_note(r, "limit", which);
	return (int)((wait_ms + 999) / 1000);
}

static size_t subscriber_len(const struct ip *ip)
{
	return ip_is_v4(ip) ? sizeof(ip->b) : V6_SUBSCRIBER;
}

/* An address first, then its site: what the address may not ask costs its neighbours nothing. */
static int limit_address(struct api *api, struct req *r, const struct ip *ip)
{
	int64_t wait_ms;

	if (!buckets_take(api->ip_buckets, ip->b, subscriber_len(ip), &api->login_per_ip, &wait_ms))
		return told(r, "login_per_ip", wait_ms);
	if (!ip_is_v4(ip) &&
		!buckets_take(api->ip_buckets, ip->b, V6_SITE, &api->login_per_48, &wait_ms))
		return told(r, "login_per_48", wait_ms);
	return 0;
}

int limit_login(struct api *api, struct req *r, const struct client *c, const char *appid)
{
	int64_t wait_ms;
	int wait_s = 0;

	if (c->limited)
		wait_s = limit_address(api, r, &c->ip);
	else if (!api->warned_unlimited && api->login_per_ip.count) {
		log_warn("logins from loopback are not limited by address: name your proxy in "
			 "trusted_proxies",
			LOG_STR("peer", c->text));
		api->warned_unlimited = true;
	}
	if (wait_s)
		return wait_s;
	if (!buckets_take(api->app_buckets, appid, strlen(appid), &api->login_per_app, &wait_ms))
		return told(r, "login_per_app", wait_ms);
	return 0;
}

void limit_login_refused(struct api *api, const struct client *c)
{
	if (!c->limited)
		return;
	buckets_spend(api->ip_buckets, c->ip.b, subscriber_len(&c->ip), &api->login_per_ip,
		LIMIT_REFUSED_COSTS - 1);
	if (!ip_is_v4(&c->ip))
		buckets_spend(api->ip_buckets, c->ip.b, V6_SITE, &api->login_per_48,
			LIMIT_REFUSED_COSTS - 1);
}

bool limit_user(struct api *api, struct req *r, const char *name, const struct bucket_limit *limit,
	const char *appid, const char *openid)
{
	const char *key = arena_printf(req_arena(r), "%s %s %s", name, appid, openid);
	uint8_t hash[SHA256_LEN];
	int64_t wait_ms;

	crypt_sha256(hash, key, strlen(key)); /* an openid may be longer than a bucket's key */
	if (buckets_take(api->user_buckets, hash, sizeof(hash), limit, &wait_ms))
		return true;
	req_reply_error(r, &(struct req_error){
				   .oc = OC_RATE_LIMITED, .retry_after_s = told(r, name, wait_ms)});
	return false;
}
