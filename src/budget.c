/*
 * budget.c - earning by misses, sharing between threads (tune.h).
 */
#include "budget.h"

#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "tune.h"

/* [atomic] relaxed: a hint */
static struct {
	_Atomic uint32_t n;
} HZ4_LINE_ALIGNED users;

/* What caches hold is touched, too, but of no use to the program. */
static void
note_users(uint32_t before, uint32_t now)
{
	long change = (long)hz4_max(now, 1) - (long)hz4_max(before, 1);

	hz4_pageheap_note_dense(-change * HZ4_DENSE_THREAD);
}

void
hz4_budget_add_user(int change)
{
	uint32_t before = atomic_fetch_add_explicit(
		&users.n, (uint32_t)change, memory_order_relaxed);

	note_users(before, before + (uint32_t)change);
}

uint32_t
hz4_budget_users(void)
{
	return hz4_peek(&users.n);
}

void
hz4_budget_fork_child(bool one)
{
	note_users(hz4_budget_users(), one);
	hz4_poke(&users.n, one);
}

/* What every thread may have. */
static size_t
fair_share(void)
{
	return hz4_option(HZ4_OPT_thread_cache) << 10;
}

/*
 * What a thread may have at most: more where there are few of them, or where
 * the heap is large.
 */
static size_t
most(void)
{
	size_t all = hz4_max(HZ4_BUDGET_SHARERS * fair_share(),
			     hz4_pageheap_used() / HZ4_BUDGET_HEAP_SHARE);
	size_t share = all / hz4_max(1, hz4_budget_users());

	return hz4_max(fair_share(),
		       hz4_min(share, HZ4_BUDGET_FEW * fair_share()));
}

/* What it starts with. */
static size_t
start_of(const struct hz4_budget *b)
{
	size_t share;

	if (b->first)
		return HZ4_BUDGET_FIRST_THREAD;
	share = hz4_os_cpus() * (size_t)HZ4_BUDGET_STARTS /
		hz4_max(1, hz4_budget_users());
	return hz4_max(HZ4_BUDGET_START_LEAST,
		       hz4_min(HZ4_BUDGET_START_MOST, share));
}

void
hz4_budget_init(struct hz4_budget *b, bool first)
{
	b->first = first;
	b->missed = 0;
	b->earned = false;
	b->granted = hz4_min(fair_share(), start_of(b));
	b->left = b->granted;
}

size_t
hz4_budget_pass_on(struct hz4_budget *b)
{
	size_t share = hz4_os_cpus() * (size_t)HZ4_BUDGET_PASSED_ON /
		       hz4_max(1, hz4_budget_users());

	b->granted = hz4_min(hz4_min(b->granted, fair_share()),
			     hz4_max(share, start_of(b)));
	return b->granted;
}

void
hz4_budget_recount(struct hz4_budget *b, size_t given)
{
	b->granted = hz4_max(b->granted, given);
	b->left = b->granted - given;
}

/*
 * Missed bytes that double it: many at first, few once the thread has shown
 * that it is no short one; above what all threads may have, several times
 * what it is.
 */
static size_t
price_of(const struct hz4_budget *b)
{
	if (b->granted >= fair_share())
		return hz4_max(HZ4_BUDGET_DOUBLES,
			       HZ4_BUDGET_PRICE * b->granted);
	return b->earned && b->granted >= HZ4_BUDGET_PROVEN ?
		       HZ4_BUDGET_DOUBLES_PROVEN :
		       HZ4_BUDGET_DOUBLES;
}

void
hz4_budget_earn(struct hz4_budget *b, size_t bytes)
{
	size_t end, more;

	b->missed += (uint32_t)hz4_max(bytes, HZ4_BUDGET_MISS);
	if (b->missed < price_of(b))
		return;
	b->missed = 0;
	b->earned = true;
	end = most();
	if (b->granted >= end)
		return;
	more = hz4_min(b->granted, end - b->granted);
	b->granted += more;
	b->left += more;
}
