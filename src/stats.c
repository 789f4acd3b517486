/*
 * stats.c - names and sums of the counters.
 */
#include "stats.h"

enum serves { NONE, MALLOC, FREE };

struct row {
	const char *name;
	enum serves serves;
};

static const struct row rows[] = {
	[HZ4_STAT_MALLOC_CALLS] = { "malloc_calls", NONE },
	[HZ4_STAT_FREE_CALLS] = { "free_calls", NONE },
#define HZ4_COUNTER(name, serves, text) \
	[HZ4_STAT_FIRST_ROW + HZ4_COUNT_##name] = { #name, serves },
#include "stats.def"
#undef HZ4_COUNTER
};

void
hz4_stat_add(uint64_t *stats, const struct hz4_counts *counts)
{
	unsigned i;
	uint64_t n;

	if (!HZ4_MID_STATS_B1)
		return;
	for (i = HZ4_STAT_FIRST_ROW; i < HZ4_STAT_END; i++) {
		n = hz4_peek(&counts->value[i - HZ4_STAT_FIRST_ROW]);
		stats[i] += n;
		if (rows[i].serves == MALLOC)
			stats[HZ4_STAT_MALLOC_CALLS] += n;
		else if (rows[i].serves == FREE)
			stats[HZ4_STAT_FREE_CALLS] += n;
	}
}

const char *
hz4_stat_name(unsigned which)
{
	return which < HZ4_STAT_END ? rows[which].name : NULL;
}
