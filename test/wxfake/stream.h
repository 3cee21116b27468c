/* Answers that come in pieces or break off. The head is the bytes given, nothing is added; the
 * connection closes at the end. Callers hold the req while they stream. */
#ifndef WXFAKE_STREAM_H
#define WXFAKE_STREAM_H

#include "http/req.h"

void req_stream_start(struct req *r, const void *head, size_t len);
/* false: the client is gone, or more than 1 MB waits for it */
bool req_stream_write(struct req *r, const void *p, size_t len);
void req_stream_end(struct req *r);   /* flush, then close */
void req_stream_reset(struct req *r); /* the client sees a connection reset */

#endif
