/*
 * stats.c - names of the counters.
 */
#include "stats.h"

struct row {
	const char *name;
	const char *text;
};

static const struct row rows[] = {
#define HZ4_COUNTER(name, text) { #name, text },
#include "stats.def"
#undef HZ4_COUNTER
};

const char *
hz4_counter_name(unsigned which)
{
	return which < HZ4_COUNTERS ? rows[which].name : NULL;
}

const char *
hz4_counter_text(unsigned which)
{
	return which < HZ4_COUNTERS ? rows[which].text : NULL;
}
