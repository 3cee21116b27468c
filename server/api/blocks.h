/* Redis is told of the blocks that the user database has: at the start, when either came back, and
 * once a minute. So a Redis that was emptied learns them again, and a login that passed while
 * neither could refuse it is ended. */
#ifndef API_BLOCKS_H
#define API_BLOCKS_H

#include "api/api.h"

struct blocks *blocks_new(struct api *api);
void blocks_close(struct blocks *b); /* begins nothing more; NULL is fine */
/* after Redis and the user database: by then every callback has come */
void blocks_free(struct blocks *b);

#endif
