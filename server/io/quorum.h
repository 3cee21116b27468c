/* When more than half agreed: of all who may say so, not of those who answer. */
#ifndef IO_QUORUM_H
#define IO_QUORUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROOF_NEVER (INT64_MIN / 2)

/* What one of them said last. sent_ms: when it was asked, since what it said may be as old as that.
 */
struct vote {
	bool    agrees;
	int64_t sent_ms;
};

/* The latest moment of which more than half of the n had been asked, then or later, and agreed;
 * PROOF_NEVER while they do not. */
static inline int64_t quorum_ms(const struct vote *v, size_t n)
{
	int64_t best = PROOF_NEVER;

	for (size_t i = 0; i < n; i++) {
		size_t as_late = 0;

		for (size_t j = 0; j < n; j++)
			as_late += v[j].agrees && v[j].sent_ms >= v[i].sent_ms;
		if (v[i].agrees && 2 * as_late > n && v[i].sent_ms > best)
			best = v[i].sent_ms;
	}
	return best;
}

#endif
