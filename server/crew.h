/* The supervisor: see crew.c. */
#ifndef CREW_H
#define CREW_H

#include "config/config.h"

/* Call it first: descriptors 0 to 2 are open, the signals that crew_run takes are held back until
 * it does, memory is not dumpable. */
void crew_prepare(void);

/* Serves until a signal has ended it. Takes config over; the log is open. argv starts the program
 * anew (SIGUSR2). Returns an EXIT_ status of app.h. */
int crew_run(const char *file, struct config *config, char *const *argv);

#endif
