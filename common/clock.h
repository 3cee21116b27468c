/* Two clocks: the monotonic one for every wait and age inside the process, the wall clock for what
 * people read. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

int64_t clock_ms(void);     /* monotonic milliseconds */
int64_t clock_us(void);     /* monotonic microseconds */
int64_t clock_wall_s(void); /* Unix seconds */
int64_t clock_wall_ms(void);
int64_t clock_wall_us(void);

#endif
