/* The newest is in file[puts % 2]; the other is the one that is written next. A worker that reads
 * while it is written reads again. */
#include "published.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/mem.h"

struct shared {
	_Atomic uint64_t puts, refusals;
};

struct published {
	struct shared *shared;
	int            file[2];
	uint64_t       seen, refused; /* a worker's: what it knows of shared */
};

struct published *published_new(void)
{
	struct published *p = mem_alloc(sizeof(*p));

	p->shared = mem_shared(sizeof(*p->shared));
	for (size_t i = 0; i < NELEM(p->file); i++)
		p->file[i] = memfd_create("wxlogind configuration", MFD_CLOEXEC);
	if (p->file[0] >= 0 && p->file[1] >= 0)
		return p;
	published_free(p);
	return NULL;
}

void published_free(struct published *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < NELEM(p->file); i++)
		if (p->file[i] >= 0)
			close(p->file[i]);
	mem_shared_free(p->shared, sizeof(*p->shared));
	free(p);
}

bool published_put(struct published *p, const struct buf *b)
{
	uint64_t next = p->shared->puts + 1;
	int fd = p->file[next % 2];

	if (ftruncate(fd, 0) || pwrite(fd, b->data, b->len, 0) != (ssize_t)b->len)
		return false;
	p->shared->puts = next;
	return true;
}

void published_refuse(struct published *p)
{
	p->shared->refusals++;
}

void published_join(struct published *p)
{
	p->seen = p->shared->puts;
	p->refused = p->shared->refusals;
}

static void read_newest(struct published *p, struct buf *b)
{
	char piece[4096];
	ssize_t n;

	do { /* again, if it was overwritten meanwhile */
		p->seen = p->shared->puts;
		buf_clear(b);
		while ((n = pread(p->file[p->seen % 2], piece, sizeof(piece), (off_t)b->len)) > 0)
			buf_add(b, piece, (size_t)n);
	} while (p->seen != p->shared->puts);
	mem_wipe(piece, sizeof(piece));
}

bool published_get(struct published *p, struct buf *b, bool *refused)
{
	*refused = p->refused != p->shared->refusals;
	p->refused = p->shared->refusals;
	if (p->seen == p->shared->puts)
		return false;
	read_newest(p, b);
	return true;
}
