/* Heap memory that is either there or ends the process: limits on bodies, connections and queues
 * keep callers from steering us to the end of it. */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stddef.h>

#define NELEM(a) (sizeof(a) / sizeof((a)[0]))

void *mem_alloc(size_t n);           /* zeroed; never NULL; free() it */
void *mem_realloc(void *p, size_t n);
char *mem_strdup(const char *s);     /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n);
/* zeroed; one memory for this process and those that it forks */
void *mem_shared(size_t n);
void  mem_shared_free(void *p, size_t n); /* here; NULL is fine */
/* Call it now and then: gives memory that a wave has left behind back to the system. Does nothing
 * while little is idle. */
void  mem_trim(void);
void  mem_wipe(void *p, size_t n);   /* not optimised away */
void  mem_free_secret(char *s);      /* wipes a string, then frees it; NULL is fine */

#endif
