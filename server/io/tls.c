/* OpenSSL, with one error text a stranger can act on. */
#include "io/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/log.h"
#include "common/mem.h"

enum { FILES = 3 };

struct tls {
	SSL_CTX *ctx;
	char    *files[FILES];         /* CA, certificate, key; "" = none */
	struct timespec changed[FILES]; /* when they last did, as read */
	char    *name;
};

struct tls_link {
	SSL *ssl;
	char why[160];
};

static struct timespec changed_at(const char *file)
{
	struct stat st;

	return *file && stat(file, &st) == 0 ? st.st_mtim : (struct timespec){0};
}

static const char *last_error(void)
{
	unsigned long e = ERR_peek_last_error();

	return ERR_GET_LIB(e) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(e))
					     : log_or_empty(ERR_reason_error_string(e));
}

static bool load(SSL_CTX *ctx, char *const files[FILES], char *err, size_t err_size)
{
	const char *bad = NULL;

	ERR_clear_error();
	if (*files[0] ? SSL_CTX_load_verify_locations(ctx, files[0], NULL) != 1
		      : SSL_CTX_set_default_verify_paths(ctx) != 1)
		bad = *files[0] ? files[0] : "the system's certificates";
	else if (*files[1] && SSL_CTX_use_certificate_chain_file(ctx, files[1]) != 1)
		bad = files[1];
	else if (*files[2] && (SSL_CTX_use_PrivateKey_file(ctx, files[2], SSL_FILETYPE_PEM) != 1 ||
				      SSL_CTX_check_private_key(ctx) != 1))
		bad = files[2];
	if (bad)
		snprintf(err, err_size, "%s: %s", bad, last_error());
	return !bad;
}

static SSL_CTX *context(char *const files[FILES], char *err, size_t err_size)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx)
		abort(); /* out of memory */
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (!load(ctx, files, err, err_size)) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

static void note_changes(struct tls *t)
{
	for (int i = 0; i < FILES; i++)
		t->changed[i] = changed_at(t->files[i]);
}

struct tls *tls_new(const struct tls_options *o, char *err, size_t err_size)
{
	struct tls *t = mem_alloc(sizeof(*t));

	t->files[0] = mem_strdup(o->ca_file);
	t->files[1] = mem_strdup(o->cert_file);
	t->files[2] = mem_strdup(o->key_file);
	t->name = mem_strdup(o->name);
	note_changes(t);
	t->ctx = context(t->files, err, err_size);
	if (t->ctx)
		return t;
	tls_free(t);
	return NULL;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	SSL_CTX_free(t->ctx);
	for (int i = 0; i < FILES; i++)
		free(t->files[i]);
	free(t->name);
	free(t);
}

/* A certificate that was renewed: the old one may have ended. */
static void read_again(struct tls *t)
{
	bool same = true;
	char err[256];
	SSL_CTX *ctx;

	for (int i = 0; i < FILES; i++) {
		struct timespec now = changed_at(t->files[i]);

		same = same && now.tv_sec == t->changed[i].tv_sec &&
		       now.tv_nsec == t->changed[i].tv_nsec;
	}
	if (same)
		return;
	note_changes(t);
	ctx = context(t->files, err, sizeof(err));
	if (!ctx) {
		log_error("a changed certificate file cannot be read: the one before stays in use",
			LOG_STR("cause", err));
		return;
	}
	SSL_CTX_free(t->ctx);
	t->ctx = ctx;
}

static bool is_address(const char *host)
{
	struct in6_addr any;

	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

struct tls_link *tls_open(struct tls *t, int fd, const char *host)
{
	struct tls_link *l = mem_alloc(sizeof(*l));
	const char *name = *t->name ? t->name : host;

	read_again(t);
	l->ssl = SSL_new(t->ctx);
	if (!l->ssl || SSL_set_fd(l->ssl, fd) != 1)
		abort(); /* out of memory */
	if (is_address(name)) {
		X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(l->ssl), name);
	} else {
		SSL_set1_host(l->ssl, name);
		SSL_set_tlsext_host_name(l->ssl, name);
	}
	SSL_set_connect_state(l->ssl);
	return l;
}

void tls_close(struct tls_link *l)
{
	if (!l)
		return;
	/* no close_notify: Redis' replies have lengths, nothing can be cut short unnoticed */
	SSL_free(l->ssl);
	free(l);
}

static void note_failure(struct tls_link *l, int error)
{
	long verified = SSL_get_verify_result(l->ssl);
	unsigned long e = ERR_peek_last_error();

	if (verified != X509_V_OK)
		snprintf(l->why, sizeof(l->why), "TLS: the server's certificate: %s",
			X509_verify_cert_error_string(verified));
	else if (ERR_GET_REASON(e) == SSL_R_WRONG_VERSION_NUMBER)
		snprintf(l->why, sizeof(l->why),
			"TLS: the answer is not TLS (is it the port for TLS?)");
	else if (error == SSL_ERROR_SSL && e)
		snprintf(l->why, sizeof(l->why), "TLS: %s", last_error());
	else
		snprintf(l->why, sizeof(l->why), "TLS: %s",
			errno ? strerror(errno) : "closed by the server (is it the port for TLS?)");
}

/* got: what an SSL_ function returned. */
static int outcome_of(struct tls_link *l, int got)
{
	int error = SSL_get_error(l->ssl, got);

	if (error == SSL_ERROR_WANT_READ)
		return TLS_READ;
	if (error == SSL_ERROR_WANT_WRITE)
		return TLS_WRITE;
	if (error == SSL_ERROR_ZERO_RETURN)
		return TLS_END;
	note_failure(l, error);
	return TLS_BAD;
}

int tls_handshake(struct tls_link *l)
{
	int got;

	ERR_clear_error();
	errno = 0;
	got = SSL_do_handshake(l->ssl);
	if (got == 1)
		return TLS_DONE;
	got = outcome_of(l, got);
	if (got == TLS_END)
		note_failure(l, SSL_ERROR_SYSCALL);
	return got == TLS_END ? TLS_BAD : got;
}

ssize_t tls_read(struct tls_link *l, void *p, size_t n)
{
	int got;

	ERR_clear_error();
	errno = 0;
	got = SSL_read(l->ssl, p, (int)n);
	return got > 0 ? got : outcome_of(l, got);
}

ssize_t tls_write(struct tls_link *l, const void *p, size_t n)
{
	int got;

	ERR_clear_error();
	errno = 0;
	got = SSL_write(l->ssl, p, n > INT32_MAX ? INT32_MAX : (int)n);
	return got > 0 ? got : outcome_of(l, got);
}

bool tls_has_more(const struct tls_link *l)
{
	return SSL_has_pending(l->ssl);
}

const char *tls_why(struct tls_link *l)
{
	return l->why;
}
