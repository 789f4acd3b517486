/*
 * share.c - counting threads, and the pool of bytes that they may cache.
 */
#include "share.h"

#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "tune.h"

/* [atomic] relaxed: a hint */
static struct {
	_Atomic uint32_t n;
} HZ4_LINE_ALIGNED users;

/* [atomic] relaxed: stands for itself */
static struct {
	_Atomic size_t taken;
} HZ4_LINE_ALIGNED pool;

/* What caches hold is touched, too, but of no use to the program. */
static void
note_users(uint32_t before, uint32_t now)
{
	long change = (long)hz4_max(now, 1) - (long)hz4_max(before, 1);

	hz4_pageheap_note_dense(-change * HZ4_DENSE_THREAD);
}

void
hz4_share_add_user(int change)
{
	uint32_t before = atomic_fetch_add_explicit(
		&users.n, (uint32_t)change, memory_order_relaxed);

	note_users(before, before + (uint32_t)change);
}

uint32_t
hz4_share_users(void)
{
	return hz4_peek(&users.n);
}

void
hz4_share_set_users(uint32_t n)
{
	if (n == hz4_share_users())
		return;
	note_users(hz4_share_users(), n);
	hz4_poke(&users.n, n);
}

size_t
hz4_share_most(void)
{
	return hz4_option(HZ4_OPT_thread_cache) << 10;
}

size_t
hz4_share_start(bool first)
{
	size_t share = hz4_os_cpus() * (size_t)HZ4_START_SHARED /
		       hz4_max(1, hz4_share_users());

	if (first)
		share = HZ4_START_FIRST_THREAD;
	else
		share = hz4_max(HZ4_START_LEAST,
				hz4_min(HZ4_START_MOST, share));
	return hz4_min(share, hz4_share_most());
}

uint32_t
hz4_share_price(void)
{
	size_t price = (size_t)HZ4_EARN_THREAD * hz4_share_users();

	return (uint32_t)hz4_max(HZ4_EARN_LEAST, hz4_min(HZ4_EARN_MOST, price));
}

/* A larger heap may have larger caches, which count as part of it. */
static size_t
pool_size(void)
{
	size_t heap = hz4_pageheap_used();
	size_t each = hz4_option(HZ4_OPT_cpu_cache) << 10;
	/* So many that no sum wraps where addresses have 32 bits. */
	size_t cpus = hz4_max(1, hz4_min(hz4_os_cpus(), SIZE_MAX / 4 /
					 (each + HZ4_POOL_LEAST)));

	return hz4_max(hz4_min(cpus * each, cpus * HZ4_POOL_LEAST +
					    heap / 4 * HZ4_POOL_QUARTERS),
		       heap / HZ4_POOL_HEAP_SHARE);
}

size_t
hz4_share_take(size_t bytes)
{
	size_t taken = hz4_peek(&pool.taken), all, some;

	do {
		all = pool_size();
		if (taken >= all)
			return 0;
		some = hz4_min(bytes, (all - taken) / HZ4_POOL_TAKES);
	} while (!atomic_compare_exchange_weak_explicit(
		&pool.taken, &taken, taken + some, memory_order_relaxed,
		memory_order_relaxed));
	return some;
}

void
hz4_share_give(size_t bytes)
{
	atomic_fetch_sub_explicit(&pool.taken, bytes, memory_order_relaxed);
}

size_t
hz4_share_taken(void)
{
	return hz4_peek(&pool.taken);
}

void
hz4_share_set_taken(size_t bytes)
{
	if (bytes != hz4_peek(&pool.taken))
		hz4_poke(&pool.taken, bytes);
}
