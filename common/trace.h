/* The header traceparent (W3C Trace Context, level 1): which request of a distributed trace this
 * one is. */
#ifndef COMMON_TRACE_H
#define COMMON_TRACE_H

#include <stdbool.h>

enum { TRACE_ID_LEN = 32, TRACE_ID_AT = 3 }; /* in a traceparent: where its trace-id stands */

/* 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, or what a later version makes longer. */
bool trace_parent_ok(const char *text);

#endif
