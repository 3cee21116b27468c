/* --check --connect: tries what the configuration names, and says what each answered. */
#ifndef CONNECT_H
#define CONNECT_H

#include "config/config.h"

/* Binds the addresses and lets go, asks Redis, the user database and WeChat's hosts, and prints a
 * line for each on standard output. Changes and spends nothing: WeChat is asked with a code that no
 * phone has, the database is opened for reading, unix sockets are not touched. false: something
 * cannot be used. An address in use is no error: the server that is to be replaced may be running.
 */
bool connect_all(const struct config *c);

#endif
