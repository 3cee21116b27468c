#include "common/outcome.h"

static const struct { int status; const char *code, *text; } rows[] = {
#define X(name, status, code, text) [OC_##name] = {status, code, text},
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

const char *outcome_text(enum outcome oc)
{
	return rows[oc].text;
}
