/* What this process costs: CPU time, memory, descriptors, as the process_... metrics that every
 * Prometheus client has. The workers count together, as in all metrics. */
#ifndef COMMON_USAGE_H
#define COMMON_USAGE_H

/* Takes some microseconds. Call it now and then, for the answers of other workers, and before
 * metrics are printed. */
void usage_measure(void);

#endif
