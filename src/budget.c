/*
 * budget.c - earning by misses, sharing between threads (tune.h).
 */
#include "budget.h"

#include "option.h"
#include "tune.h"

/* [atomic] relaxed: a hint */
static struct {
	_Atomic uint32_t n;
} HZ4_LINE_ALIGNED users;

void
hz4_budget_add_user(int change)
{
	atomic_fetch_add_explicit(&users.n, (uint32_t)change,
				  memory_order_relaxed);
}

uint32_t
hz4_budget_users(void)
{
	return hz4_peek(&users.n);
}

void
hz4_budget_fork_child(bool one)
{
	hz4_poke(&users.n, one);
}

/* What every thread may have. */
static size_t
fair_share(void)
{
	return hz4_option(HZ4_OPT_thread_cache) << 10;
}

/* What a thread may have at most: more where there are few of them. */
static size_t
most(void)
{
	size_t share = HZ4_BUDGET_SHARERS / hz4_max(1, hz4_budget_users());

	return fair_share() * hz4_max(1, hz4_min(share, HZ4_BUDGET_FEW));
}

void
hz4_budget_init(struct hz4_budget *b, bool first)
{
	b->first = first;
	hz4_budget_reset(b);
}

void
hz4_budget_reset(struct hz4_budget *b)
{
	b->missed = 0;
	b->granted = hz4_min(fair_share(), b->first ? HZ4_BUDGET_FIRST_THREAD :
						      HZ4_BUDGET_START);
	b->left = b->granted;
}

void
hz4_budget_recount(struct hz4_budget *b, size_t given)
{
	b->granted = hz4_max(b->granted, given);
	b->left = b->granted - given;
}

/*
 * Every so many missed bytes double it; above what all threads may have,
 * several times what it is.
 */
void
hz4_budget_earn(struct hz4_budget *b, size_t bytes)
{
	size_t price = HZ4_BUDGET_DOUBLES, end = most(), more;

	if (b->granted >= end)
		return;
	b->missed += (uint32_t)bytes;
	if (b->granted >= fair_share())
		price = hz4_max(price, HZ4_BUDGET_PRICE * b->granted);
	if (b->missed < price)
		return;
	b->missed = 0;
	more = hz4_min(b->granted, end - b->granted);
	b->granted += more;
	b->left += more;
}
