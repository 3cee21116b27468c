/* Virtual payment: a user's coins. Each user begins with 1000; an order is known by its number, the
 * newest few of each user. */
#include <string.h>

#include "common/json.h"
#include "fake.h"

enum { FIELD = 268490002, REPEATED = 268490004, REFUNDED = 268490005, TOO_LITTLE = 268490006 };

static struct order *order_find(struct user *u, const char *id)
{
	for (size_t i = 0; i < NELEM(u->orders); i++)
		if (!strcmp(u->orders[i].id, id))
			return &u->orders[i];
	return NULL;
}

static void print(struct buf *b, const char *order_id, int64_t balance)
{
	buf_printf(b, ",\"order_id\":\"%s\",\"balance\":%lld", order_id, (long long)balance);
}

static int pay(struct user *u, const char *id, int64_t amount, struct buf *b)
{
	struct order *o = &u->orders[u->order_next];

	if (order_find(u, id))
		return REPEATED;
	if (amount > u->balance)
		return TOO_LITTLE;
	u->balance -= amount;
	u->order_next = (u->order_next + 1) % (int)NELEM(u->orders);
	*o = (struct order){.amount = amount};
	strcpy(o->id, id);
	print(b, id, u->balance);
	return 0;
}

static int cancel(struct user *u, const char *id, int64_t amount, struct buf *b)
{
	struct order *o = order_find(u, id);

	if (!o)
		return FIELD;
	if (amount > o->amount)
		return o->amount ? TOO_LITTLE : REFUNDED;
	o->amount -= amount;
	u->balance += amount;
	buf_printf(b, ",\"order_id\":\"%s\"", id);
	return 0;
}

int xpay(enum api api, struct user *u, const cJSON *o, struct buf *b)
{
	const char *id, *ip, *key = api == API_XPAY_CANCEL ? "pay_order_id" : "order_id";
	int64_t amount, env;

	if (json_int(o, "env", 0, 1, &env) != JSON_GOT ||
		json_str(o, "user_ip", 1, 64, &ip) != JSON_GOT)
		return FIELD;
	if (api == API_XPAY_BALANCE) {
		buf_printf(b, ",\"balance\":%lld,\"present_balance\":0", (long long)u->balance);
		return 0;
	}
	if (json_str(o, key, 1, ORDER_MAX, &id) != JSON_GOT || !openid_ok(id) ||
		json_int(o, "amount", 1, 1000000, &amount) != JSON_GOT)
		return FIELD;
	return api == API_XPAY_PAY ? pay(u, id, amount, b) : cancel(u, id, amount, b);
}
