/*
 * stats.h: names and texts of the counters, and that counting costs
 * nothing where it is not built.
 */
#include "unit.h"

#include "stats.h"

enum { NONE, MALLOC, FREE };

static const struct row {
	const char *name;
	unsigned serves;
} rows[] = {
#define HZ4_COUNTER(name, serves, text) { #name, serves },
#include "stats.def"
#undef HZ4_COUNTER
};

START_TEST(every_row_has_its_name)
{
	unsigned i, k;

	ck_assert_uint_eq(HZ4_COUNTERS, sizeof rows / sizeof *rows);
	ck_assert_ptr_null(hz4_stat_name(HZ4_STAT_END));
	ck_assert_ptr_null(hz4_stat_name(UINT32_MAX));
	ck_assert_str_eq(hz4_stat_name(HZ4_STAT_MALLOC_CALLS), "malloc_calls");
	ck_assert_str_eq(hz4_stat_name(HZ4_STAT_FREE_CALLS), "free_calls");
	for (i = 0; i < HZ4_COUNTERS; i++)
		ck_assert_str_eq(hz4_stat_name(HZ4_STAT_FIRST_ROW + i),
				 rows[i].name);
	for (i = 0; i < HZ4_STAT_END; i++)
		for (k = 0; k < i; k++)
			ck_assert_str_ne(hz4_stat_name(i), hz4_stat_name(k));
}
END_TEST

/* Both sums are of the rows that say where a call was served. */
START_TEST(counts_add_up)
{
	static struct hz4_counts counts[2];
	uint64_t sum[HZ4_STAT_END] = { 0 }, calls[] = { 0, 0, 0 };
	unsigned i;

	for (i = 0; i < HZ4_COUNTERS; i++) {
		hz4_count(counts, 1, (enum hz4_counter)i, (uint64_t)1 << i);
		hz4_count(counts, 1, (enum hz4_counter)i, 2);
		calls[rows[i].serves] += ((uint64_t)1 << i) + 2;
	}
	ck_assert(unit_all(&counts[0], sizeof counts[0], 0));
	hz4_stat_add(sum, &counts[1]);
	hz4_stat_add(sum, &counts[1]);
	if (!HZ4_MID_STATS_B1) {
		/* Nothing is kept, and next to nothing stored. */
		ck_assert_uint_eq(sizeof counts[0], sizeof(uint64_t));
		ck_assert_uint_eq(HZ4_STATS, 0);
		ck_assert(unit_all(counts, sizeof counts, 0));
		ck_assert(unit_all(sum, sizeof sum, 0));
		return;
	}
	ck_assert_uint_eq(HZ4_STATS, HZ4_STAT_END);
	for (i = 0; i < HZ4_COUNTERS; i++)
		ck_assert_uint_eq(sum[HZ4_STAT_FIRST_ROW + i],
				  2 * (((uint64_t)1 << i) + 2));
	ck_assert_uint_eq(sum[HZ4_STAT_MALLOC_CALLS], 2 * calls[MALLOC]);
	ck_assert_uint_eq(sum[HZ4_STAT_FREE_CALLS], 2 * calls[FREE]);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, every_row_has_its_name);
	tcase_add_test(t, counts_add_up);
}

int
main(void)
{
	return unit_main("stats", add);
}
