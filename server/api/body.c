#include "api/body.h"

cJSON *body_object(struct req *r, const char **wrong)
{
	size_t len;
	const char *body = req_body(r, &len);
	cJSON *tree = json_parse(body, len);

	if (cJSON_IsObject(tree))
		return tree;
	json_free(tree);
	*wrong = "The body is not a JSON object in valid UTF-8.";
	return NULL;
}

const char *body_texts(struct req *r, const struct body_text *texts, size_t n)
{
	const char *wrong = NULL, *text;
	cJSON *tree = body_object(r, &wrong);

	for (size_t i = 0; i < n && !wrong; i++) {
		const struct body_text *t = &texts[i];
		enum json_get got = json_str(tree, t->name, t->min_bytes, t->max_bytes, &text);

		if (got == JSON_GOT)
			*t->out = arena_strdup(req_arena(r), text);
		else if (got == JSON_BAD || t->required)
			wrong = t->wrong;
	}
	json_free(tree);
	return wrong;
}
