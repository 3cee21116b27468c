#include "http/waits.h"

#include <stddef.h>

#include <utlist.h>

#include "common/clock.h"

void waits_begin(struct waits *ws, struct wait *w, enum wait_kind kind)
{
	w->kind = kind;
	w->since_ms = clock_ms();
	DL_APPEND(ws->first[kind], w);
}

void waits_end(struct waits *ws, struct wait *w)
{
	DL_DELETE(ws->first[w->kind], w);
}

void waits_move(struct waits *ws, struct wait *w, enum wait_kind kind)
{
	waits_end(ws, w);
	waits_begin(ws, w, kind);
}

struct wait *waits_oldest(const struct waits *ws, enum wait_kind kind)
{
	return ws->first[kind];
}

struct wait *waits_overdue(const struct waits *ws, enum wait_kind kind, int64_t limit_ms)
{
	struct wait *oldest = ws->first[kind];

	return oldest && oldest->since_ms + limit_ms <= clock_ms() ? oldest : NULL;
}
