/* The supervisor of the workers. */
#ifndef CREW_H
#define CREW_H

#include "config/config.h"

/* Holds back the signals that crew_run takes, until it does. Call it first. */
void crew_hold_signals(void);

/* Serves until a signal has ended it. Takes config over. Returns an EXIT_ status of app.h. */
int crew_run(const char *file, struct config *config);

#endif
