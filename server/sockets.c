#include "sockets.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
#include "http/http.h"

static bool open_side(struct sockets *s, int side, const struct config *c)
{
	const struct config_list *addresses = side ? &c->internal_listen : &c->listen;
	const struct listen_options o = {
		.unix_mode = (int)c->unix_mode, .unix_group = c->unix_group};
	char why[256];

	if (s->count[side] > 0)
		return true; /* handed over: the configured addresses do not count */
	s->side[side] = mem_alloc(sizeof(*s->side[side]) * addresses->n);
	for (size_t i = 0; i < addresses->n; i++) {
		if (!listen_open(&s->side[side][i], addresses->items[i], &o, why, sizeof(why))) {
			log_error("cannot listen", LOG_STR("address", addresses->items[i]),
				LOG_STR("cause", why));
			return false;
		}
		s->count[side]++;
	}
	return true;
}

static void log_listening(const struct sockets *s)
{
	char address[256];

	for (int side = 0; side < 2; side++)
		for (size_t i = 0; i < s->count[side]; i++) {
			listen_name(s->side[side][i].fd, address, sizeof(address));
			log_info("listening", LOG_STR("listener", side ? "internal" : "public"),
				LOG_STR("address", address));
		}
}

bool sockets_open(struct sockets *s, const struct config *c)
{
	char why[256];

	if (!handover_take(&s->handed, s->side, s->count, why, sizeof(why))) {
		log_error("cannot listen", LOG_STR("cause", why));
		return false;
	}
	if (!open_side(s, 0, c) || !open_side(s, 1, c))
		return false;
	if (s->count[0] > HTTP_LISTENERS_MAX || s->count[1] > HTTP_LISTENERS_MAX) {
		log_error("cannot serve more addresses");
		return false;
	}
	log_listening(s);
	s->internal_is_local = true;
	for (size_t i = 0; i < s->count[1]; i++)
		s->internal_is_local &= listen_is_local(s->side[1][i].fd);
	if (!s->internal_is_local && !*c->internal_token)
		log_error("cannot listen",
			LOG_STR("cause", "an internal socket is open to others than this machine: "
					 "set [server] internal_token"));
	return s->internal_is_local || *c->internal_token;
}

void sockets_close(struct sockets *s)
{
	for (int side = 0; side < 2; side++)
		for (size_t i = 0; i < s->count[side]; i++)
			listen_close(&s->side[side][i]);
}

void sockets_end(struct sockets *s, bool handed_over)
{
	for (int side = 0; side < 2; side++) {
		for (size_t i = 0; i < s->count[side]; i++)
			listen_end(&s->side[side][i],
				/* or still the one's before us */
				handed_over || s->handed.ready_fd >= 0);
		free(s->side[side]);
	}
}
