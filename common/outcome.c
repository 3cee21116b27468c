#include "common/outcome.h"

static const struct {
	int status;
	const char *code;
	int retry_after_s;
	const char *text;
} rows[] = {
#define X(name, ...) [OC_##name] = {__VA_ARGS__},
	OUTCOMES(X)
#undef X
};

int outcome_status(enum outcome oc)
{
	return rows[oc].status;
}

const char *outcome_code(enum outcome oc)
{
	return rows[oc].code;
}

int outcome_retry_after_s(enum outcome oc)
{
	return rows[oc].retry_after_s;
}

const char *outcome_text(enum outcome oc)
{
	return rows[oc].text;
}
