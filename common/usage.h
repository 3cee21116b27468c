/* What this process costs: CPU time, memory, descriptors, as the process_... metrics that every Prometheus client
 * has. The workers count together, as in all metrics. */
#ifndef COMMON_USAGE_H
#define COMMON_USAGE_H

void usage_measure(void); /* takes some microseconds; call it now and then, for the others' answers, and before printing */

#endif
