/* What a Redis Cluster may say of itself: CLUSTER SLOTS, MOVED and ASK, CLUSTER INFO. Whatever it
 * is: a map owns up to what it covers, each owner is one of its nodes, and hosts and ports can be
 * connected to.
 *
 * Input: the first byte chooses; the rest is what was said. */
#include "fuzz.h"

#include <hiredis/hiredis.h>

#include "io/slots.h"

static void check_node(const char *host, size_t max, int port)
{
	MUST(*host && strnlen(host, max) < max && port >= 1 && port <= 65535);
}

static void check_map(const struct slot_map *m)
{
	size_t covered = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		MUST(m->owner[i] == SLOT_NOBODY || m->owner[i] < m->count);
		covered += m->owner[i] != SLOT_NOBODY;
	}
	MUST(covered == m->covered && m->count <= SLOT_NODES_MAX);
	for (size_t i = 0; i < m->count; i++)
		check_node(m->nodes[i].host, sizeof(m->nodes[i].host), m->nodes[i].port);
}

static void read_replies(const uint8_t *data, size_t size)
{
	static struct slot_map m;
	redisReader *reader = reply_reader_new();
	void *v = NULL;

	redisReaderFeed(reader, (const char *)data, size);
	while (redisReaderGetReply(reader, &v) == REDIS_OK && v) {
		if (slot_map_read(&m, v, "asked"))
			check_map(&m);
		reply_free(v);
		v = NULL;
	}
	redisReaderFree(reader);
}

static void read_error(const char *text)
{
	char word[REPLY_WORD_MAX], sentence[REPLY_SENTENCE_MAX];
	struct slot_redirect r;

	reply_word(text, word);
	reply_sentence(text, "secret", sentence);
	MUST(*word && strlen(word) < REPLY_WORD_MAX && strlen(sentence) < REPLY_SENTENCE_MAX &&
		!strstr(sentence, "secret"));
	if (slot_redirect_read(&r, text, "asked")) {
		check_node(r.host, sizeof(r.host), r.port);
		MUST(r.slot < SLOTS);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned what = take_byte(&in);
	char *text;
	int64_t epoch;
	bool ok;

	if (what % 3 == 0) {
		read_replies(in.p, in.n);
		return 0;
	}
	text = malloc(in.n + 1);
	MUST(text);
	memcpy(text, in.p, in.n);
	text[in.n] = '\0';
	if (what % 3 == 1)
		read_error(text);
	else if (slot_info_read(text, &ok, &epoch))
		MUST(epoch >= 0);
	MUST(slot_of(text, in.n) < SLOTS);
	free(text);
	return 0;
}
