/* Most requests differ from the one before in nothing but their target: a handle that is set for a
 * plain GET of some host stays so. To reset it and set two dozen options anew for each request took
 * a tenth of a login's time. */
#include "io/easy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include "common/mem.h"

#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"
#define DNS_CACHE_S    60L

/* most answers are shorter, and of a piece that size malloc has one at hand */
enum { READ_BYTES = 1024, UPLOAD_BYTES = 16 * 1024, KEEPALIVE_IDLE_S = 30 };

struct easies {
	CURLSH *share;       /* TLS sessions */
	struct easy **idle;
	int     idle_len, idle_max;
	struct socks *socks;
	curl_write_callback  on_body;
	curl_prereq_callback on_sending;
	long    connect_timeout_ms;
	size_t  max_reply;
	char   *ca_file;     /* NULL = curl's own choice */
	char   *proxy;       /* "" = none */
};

static curl_socket_t open_socket(void *easy, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct easy *e = easy;

	(void)purpose;
	e->opened = true;
	return socks_open(e->group, a, e);
}

static int close_socket(void *socks, curl_socket_t fd)
{
	return socks_close(socks, fd);
}

/* curl has OpenSSL give its buffers (17 KB each way) back after each record. Not
 * SSL_CTX_set_read_ahead beside it: curl would wait at the socket for a record that OpenSSL has
 * read already. */
static CURLcode on_tls_context(CURL *e, void *ctx, void *arg)
{
	(void)e;
	(void)arg;
	SSL_CTX_clear_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	return CURLE_OK;
}

static void set_options(const struct easies *es, CURL *e)
{
	curl_easy_setopt(e, CURLOPT_SHARE, es->share);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_PROXY, es->proxy); /* "": none. Not what the environment says */
	curl_easy_setopt(e, CURLOPT_NOPROXY, "");
	curl_easy_setopt(e, CURLOPT_HTTPPROXYTUNNEL, 1L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)READ_BYTES);
	/* with TLS each request takes one, else of 64 KB */
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BYTES);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, es->connect_timeout_ms);
	curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)es->max_reply);
	curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)(SOCKS_IDLE_MS / 1000 + 1));
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, es->socks);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, on_tls_context);
	if (es->ca_file) {
		curl_easy_setopt(e, CURLOPT_CAINFO, es->ca_file);
		/* With a directory as well, curl reads the whole bundle anew for each connection:
		 * 20 ms of the loop's. */
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	}
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* else a silent name server holds the loop */
#endif
}

/* What holds for every request to that host. */
static void set_host(const struct easies *es, struct easy *e, const struct easy_request *rq)
{
	bool is_unix;

	set_options(es, e->curl);
	curl_easy_setopt(e->curl, CURLOPT_WRITEFUNCTION, es->on_body);
	curl_easy_setopt(e->curl, CURLOPT_WRITEDATA, e);
	curl_easy_setopt(e->curl, CURLOPT_PREREQFUNCTION, es->on_sending);
	curl_easy_setopt(e->curl, CURLOPT_PREREQDATA, e);
	curl_easy_setopt(e->curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(e->curl, CURLOPT_OPENSOCKETDATA, e);
	curl_easy_setopt(e->curl, CURLOPT_PRIVATE, e);
	curl_easy_setopt(e->curl, CURLOPT_DNS_CACHE_TIMEOUT, DNS_CACHE_S);
	e->group = rq->group;
	e->host = curl_url();
	if (!e->host)
		abort(); /* out of memory */
	is_unix = !strncmp(rq->origin, "unix:", 5);
	if (is_unix)
		curl_easy_setopt(e->curl, CURLOPT_UNIX_SOCKET_PATH, rq->origin + 5);
	if (curl_url_set(e->host, CURLUPART_URL, is_unix ? "http://localhost" : rq->origin, 0) ==
		CURLUE_OK)
		curl_easy_setopt(e->curl, CURLOPT_CURLU, e->host);
}

/* What a request has of its own, but for the target. */
static void set_more(CURL *e, const struct easy_request *rq)
{
	bool get = strcmp(rq->method, "GET") == 0, head = strcmp(rq->method, "HEAD") == 0;

	if (rq->body || (!get && !head)) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, rq->body ? rq->body : "");
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
		if (strcmp(rq->method, "POST") != 0)
			curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, rq->method);
	} else if (head) {
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	}
	if (rq->headers)
		curl_easy_setopt(e, CURLOPT_HTTPHEADER, rq->headers);
	if (rq->look_up)
		curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
	if (rq->probe) {
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	}
}

static bool is_plain(const struct easy_request *rq)
{
	return strcmp(rq->method, "GET") == 0 && !rq->body && !rq->headers && !rq->look_up &&
	       !rq->probe;
}

static struct easy *easy_new(void)
{
	struct easy *e = mem_alloc(sizeof(*e));

	e->curl = curl_easy_init();
	if (!e->curl)
		abort(); /* out of memory */
	return e;
}

static void easy_reset(struct easy *e)
{
	curl_easy_reset(e->curl);
	curl_url_cleanup(e->host);
	e->host = NULL;
}

static void easy_free(struct easy *e)
{
	curl_easy_cleanup(e->curl);
	curl_url_cleanup(e->host);
	free(e);
}

struct easy *easy_take(struct easies *es, const struct easy_request *rq, int64_t timeout_ms)
{
	struct easy *e = es->idle_len ? es->idle[--es->idle_len] : easy_new();

	if (e->host && e->group != rq->group)
		easy_reset(e);
	if (!e->host)
		set_host(es, e, rq);
	e->ctx = rq->ctx;
	e->opened = false;
	e->is_plain = is_plain(rq);
	if (!e->is_plain)
		set_more(e->curl, rq);
	curl_easy_setopt(e->curl, CURLOPT_REQUEST_TARGET, rq->target);
	curl_easy_setopt(e->curl, CURLOPT_TIMEOUT_MS, (long)(timeout_ms > 0 ? timeout_ms : 1));
	return e;
}

void easy_give(struct easies *es, struct easy *e)
{
	if (e->is_plain)
		curl_easy_setopt(e->curl, CURLOPT_REQUEST_TARGET, NULL); /* it has secrets in it */
	else
		easy_reset(e);
	if (es->idle_len < es->idle_max)
		es->idle[es->idle_len++] = e;
	else
		easy_free(e); /* a probe made it one more */
}

void easy_connected(struct easies *es, struct easy *e)
{
	if (e->opened)
		socks_made(es->socks, e);
}

void easy_describe(CURL *e, CURLcode code, bool sent, char *out, size_t size)
{
	long verify = 0, proxy_status = 0;

	snprintf(out, size, "%s", curl_easy_strerror(code));
	curl_easy_getinfo(e, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
	if (!sent && proxy_status >= 300)
		snprintf(out, size, "the proxy refuses: status %ld", proxy_status);
	if (code != CURLE_PEER_FAILED_VERIFICATION)
		return;
	curl_easy_getinfo(e, CURLINFO_SSL_VERIFYRESULT, &verify);
	/* curl's own start value: OpenSSL was content, the name was not */
	if (verify == X509_V_ERR_UNSPECIFIED)
		snprintf(out, size, "%s: the certificate is for another name",
			curl_easy_strerror(code));
	else if (verify)
		snprintf(out, size, "%s: %s", curl_easy_strerror(code),
			X509_verify_cert_error_string(verify));
}

static void choose_ca(struct easies *es, const char *ca_file)
{
	if (ca_file && ca_file[0])
		es->ca_file = mem_strdup(ca_file);
	else if (access(SYSTEM_CA_FILE, R_OK) == 0)
		es->ca_file = mem_strdup(SYSTEM_CA_FILE);
}

struct easies *easies_new(const struct fetch_options *o, struct socks *s,
	curl_write_callback on_body, curl_prereq_callback on_sending)
{
	struct easies *es = mem_alloc(sizeof(*es));

	*es = (struct easies){.socks = s,
		.on_body = on_body,
		.on_sending = on_sending,
		.max_reply = o->max_reply};
	es->idle_max = o->max_connections > 0 ? o->max_connections : 1;
	es->idle = mem_alloc((size_t)es->idle_max * sizeof(*es->idle));
	es->connect_timeout_ms = o->connect_timeout_ms > 0 ? o->connect_timeout_ms : 1000;
	choose_ca(es, o->ca_file);
	es->proxy = mem_strdup(o->proxy ? o->proxy : "");
	es->share = curl_share_init();
	if (!es->share)
		abort(); /* out of memory */
	curl_share_setopt(es->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	return es;
}

void easies_free(struct easies *es)
{
	while (es->idle_len)
		easy_free(es->idle[--es->idle_len]);
	curl_share_cleanup(es->share);
	free(es->idle);
	free(es->ca_file);
	mem_free_secret(es->proxy);
	free(es);
}
