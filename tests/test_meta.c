/*
 * meta.h: alignment, recycling, threads, fork, and no memory.
 */
#include "unit.h"

#include "meta.h"
#include "os.h"
#include "tune.h"

enum { BLOCKS = 600, ROUNDS = 4000, THREADS = 4, FORKS = 20 };

struct held {
	unsigned char *p;
	size_t size;
	unsigned char byte;
};

static size_t
any_size(uint64_t *seed)
{
	/* Every power of two as likely as the next. */
	size_t top = (size_t)1 << unit_below(seed, 13);

	return 1 + unit_below(seed, 2 * top);
}

static bool
try_take(struct held *h, size_t size, unsigned char byte)
{
	h->p = hz4_meta_alloc(size);
	if (h->p == NULL)
		return false;
	unit_need((uintptr_t)h->p % 64 == 0, "%p", (void *)h->p);
	h->size = size;
	h->byte = byte;
	memset(h->p, byte, size);
	return true;
}

static void
take(struct held *h, size_t size, unsigned char byte)
{
	unit_need(try_take(h, size, byte), "%zu bytes", size);
}

static void
give(struct held *h)
{
	unit_need(unit_all(h->p, h->size, h->byte), "%zu bytes at %p", h->size,
		  (void *)h->p);
	hz4_meta_free(h->p, h->size);
	h->p = NULL;
}

START_TEST(every_size)
{
	static struct held held[BLOCKS];
	unsigned i;

	unit_os_init();
	for (i = 0; i < BLOCKS; i++)
		take(&held[i], 1 + (size_t)i * i, (uint8_t)i);
	for (i = 0; i < BLOCKS; i++)
		give(&held[i]);
}
END_TEST

START_TEST(larger_than_a_chunk)
{
	struct held held[3];
	unsigned i;

	unit_os_init();
	for (i = 0; i < 3; i++)
		take(&held[i], (size_t)HZ4_META_CHUNK * (i + 1) + 1,
			       (uint8_t)i);
	ck_assert_uint_ge(hz4_meta_mapped(), (size_t)HZ4_META_CHUNK * 6);
	for (i = 0; i < 3; i++)
		give(&held[i]);
}
END_TEST

START_TEST(recycled_by_size)
{
	static struct held held[BLOCKS];
	uint64_t seed = 1;
	size_t mapped;
	unsigned i, round;

	unit_os_init();
	for (i = 0; i < BLOCKS; i++)
		take(&held[i], any_size(&seed), (uint8_t)i);
	mapped = hz4_meta_mapped();
	for (round = 0; round < 50; round++) {
		for (i = 0; i < BLOCKS; i++)
			give(&held[i]);
		for (i = 0; i < BLOCKS; i++)
			take(&held[i], held[i].size, (uint8_t)i);
	}
	ck_assert_uint_eq(hz4_meta_mapped(), mapped);
}
END_TEST

START_TEST(freed_memory_stays_readable)
{
	struct held held;
	volatile unsigned char *p;

	unit_os_init();
	take(&held, (size_t)4 * HZ4_META_CHUNK, 1);
	p = held.p;
	give(&held);
	/* The links of the free lists lie in front. */
	ck_assert_uint_eq(p[4 * HZ4_META_CHUNK - 1], 1);
}
END_TEST

static void
churn(uint64_t seed, unsigned rounds)
{
	struct held held[32] = { { NULL, 0, 0 } };
	unsigned i;

	for (i = 0; i < rounds; i++) {
		struct held *h = &held[unit_below(&seed, 32)];

		if (h->p != NULL)
			give(h);
		else
			take(h, any_size(&seed), (uint8_t)seed);
	}
	for (i = 0; i < 32; i++)
		if (held[i].p != NULL)
			give(&held[i]);
}

static void *
churn_in_thread(void *number)
{
	churn(1 + (uintptr_t)number, ROUNDS);
	return NULL;
}

START_TEST(from_many_threads)
{
	unit_os_init();
	unit_threads(THREADS, churn_in_thread);
}
END_TEST

static void
churn_some(uint64_t *seed)
{
	churn(unit_random(seed), 64);
}

/* What the child gets must not overlap what is held over the fork. */
static void
use_in_child(void *arg)
{
	struct held *held = arg;
	unsigned i;

	hz4_meta_fork_child();
	churn(1, ROUNDS / 4);
	for (i = 0; i < BLOCKS; i++)
		give(&held[i]);
	churn(2, ROUNDS / 4);
}

START_TEST(fork_while_threads_work)
{
	static struct held held[BLOCKS];
	uint64_t seed = 1;
	unsigned i;

	unit_os_init();
	for (i = 0; i < BLOCKS; i++)
		take(&held[i], any_size(&seed), (uint8_t)i);
	unit_fork_under(churn_some, FORKS, use_in_child, held);
}
END_TEST

START_TEST(no_memory)
{
	static struct held held[BLOCKS];
	size_t mapped;
	unsigned i, n = 0;

	if (!HZ4_DEBUG_BOX)
		return;
	unit_os_init();
	hz4_os_fail_from(1);
	errno = 4711;
	mapped = hz4_meta_mapped();
	ck_assert_ptr_null(hz4_meta_alloc((size_t)HZ4_META_CHUNK * 8));
	/* What is there is used up first. */
	while (n < BLOCKS && try_take(&held[n], 1000, (uint8_t)n))
		n++;
	ck_assert_uint_lt(n, BLOCKS);
	ck_assert_uint_eq(hz4_meta_mapped(), mapped);
	ck_assert_int_eq(errno, 4711);
	hz4_os_fail_from(0);
	take(&held[n], 1000, (uint8_t)n);
	for (i = 0; i <= n; i++)
		give(&held[i]);
}
END_TEST

/* All of a chunk is for use, and what lies behind it is not. */
START_TEST(the_last_of_a_chunk_can_be_written)
{
	unsigned i;
	char *p;

	for (i = 0; i < 3 * HZ4_META_CHUNK / 64; i++) {
		p = hz4_meta_alloc(64);
		unit_need(p != NULL, "block %u", i);
		memset(p, 1, 64);
	}
}
END_TEST

/* Pages among blocks: zeros, and zeros again when they were purged. */
START_TEST(pages_go_and_come_back)
{
	static struct held held[BLOCKS];
	static unsigned char *page[BLOCKS];
	size_t unused;
	unsigned i;

	unit_os_init();
	for (i = 0; i < BLOCKS; i++) {
		take(&held[i], 64 + i, (uint8_t)i);
		unused = hz4_meta_unused();
		page[i] = hz4_meta_pages(HZ4_SLAB);
		unit_need((uintptr_t)page[i] % 4096 == 0 &&
				  unit_all(page[i], HZ4_SLAB, 0),
			  "page %u at %p", i, (void *)page[i]);
		memset(page[i], 1, HZ4_SLAB);
	}
	for (i = 0; hz4_os_page <= HZ4_SLAB && i < BLOCKS; i++) {
		unused = hz4_meta_unused();
		unit_need(hz4_meta_purge(page[i], HZ4_SLAB), "page %u", i);
		ck_assert_uint_eq(hz4_meta_unused(), unused + HZ4_SLAB);
		unit_need(unit_all(page[i], HZ4_SLAB, 0), "page %u", i);
		hz4_meta_use_again(HZ4_SLAB);
		ck_assert_uint_eq(hz4_meta_unused(), unused);
	}
	for (i = 0; i < BLOCKS; i++)
		give(&held[i]);
}
END_TEST

/* Others have a part of the OS page. */
START_TEST(pages_stay_where_those_of_the_system_are_larger)
{
	unsigned char *page;
	size_t unused;

	unit_os_init();
	hz4_os_pretend_page(2 * HZ4_SLAB);
	page = hz4_meta_pages(HZ4_SLAB);
	unit_need(page != NULL, "no memory");
	memset(page, 1, HZ4_SLAB);
	unused = hz4_meta_unused();
	ck_assert(!hz4_meta_purge(page, HZ4_SLAB));
	ck_assert_uint_eq(hz4_meta_unused(), unused);
	ck_assert(unit_all(page, HZ4_SLAB, 1));
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, pages_stay_where_those_of_the_system_are_larger);
	tcase_add_test(t, pages_go_and_come_back);
	tcase_add_test(t, the_last_of_a_chunk_can_be_written);
	tcase_add_test(t, every_size);
	tcase_add_test(t, larger_than_a_chunk);
	tcase_add_test(t, recycled_by_size);
	tcase_add_test(t, freed_memory_stays_readable);
	tcase_add_test(t, from_many_threads);
	tcase_add_test(t, fork_while_threads_work);
	tcase_add_test(t, no_memory);
}

int
main(void)
{
	return unit_main("meta", add);
}
