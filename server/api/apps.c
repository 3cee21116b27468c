/* The mini programs that are served. */
#include "api/api.h"

#include <string.h>

#include "common/mem.h"

const struct wechat_app *api_app(const struct api *api, const char *appid, size_t len)
{
	for (size_t i = 0; i < api->app_count; i++)
		if (strlen(api->apps[i].appid) == len && !memcmp(api->apps[i].appid, appid, len))
			return &api->apps[i];
	return NULL;
}

const struct api_push *api_push(const struct api *api, const struct wechat_app *app)
{
	return &api->pushes[app - api->apps];
}

struct wechat_app *api_app_copy(struct arena *a, const struct wechat_app *app)
{
	struct wechat_app *copy = arena_alloc(a, sizeof(*copy));

	copy->appid = arena_strdup(a, app->appid);
	for (size_t i = 0; i < NELEM(app->secrets); i++)
		copy->secrets[i] = app->secrets[i] ? arena_strdup(a, app->secrets[i]) : NULL;
	return copy;
}
