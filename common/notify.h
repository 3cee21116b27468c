/* Tells systemd how the service is: sd_notify(3), without its library. Does nothing where nobody
 * asked ($NOTIFY_SOCKET). */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

#include <stdint.h>

void notify_send(const char *state); /* "READY=1", several apart by newlines */
int64_t notify_watchdog_ms(void);    /* how often "WATCHDOG=1" is due; 0 = never */

#endif
