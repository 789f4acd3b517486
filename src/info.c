/*
 * info.c - sums over threads, classes and the page heap.
 *
 * Every build tells the truth: what is live follows from what the slow
 * paths count anyway (hz4_tier.net, bitmaps, the page heap's sums).
 */
#include "info.h"

#include "large.h"
#include "meta.h"
#include "pageheap.h"
#include "pagemap.h"
#include "stats.h"
#include "thread.h"
#include "transfer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SCHEMA = 1 };

struct class_sum {
	int64_t net;
	size_t cached;
};

static void
add_cache(struct hz4_cache *c, void *arg)
{
	struct class_sum *sum = arg;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		sum[cls].net += hz4_peek(&c->tier[cls].net);
		sum[cls].cached += hz4_cache_count(c, cls);
	}
}

static void
add_class(struct hz4_info *out, unsigned cls, const struct class_sum *sum)
{
	size_t size = hz4_classes[cls].size;
	struct hz4_transfer_figures f;
	int64_t live = sum->net + hz4_thread_bare_net(cls) -
		       (int64_t)sum->cached;

	hz4_transfer_figures(cls, &f);
	if (live > 0) {
		out->live += (size_t)live * size;
		out->live_objects += (size_t)live;
	}
	out->cached += sum->cached * size;
	out->cached_objects += sum->cached;
	out->in_spans += f.free * size;
	out->spans += f.spans;
}

void
hz4_info_get(struct hz4_info *out)
{
	struct class_sum sums[HZ4_CLS_END];
	struct hz4_pageheap_figures pages;
	struct hz4_large_figures large;
	unsigned cls;

	hz4_thread_start();
	memset(out, 0, sizeof *out);
	memset(sums, 0, sizeof sums);
	hz4_thread_each(add_cache, sums);
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		add_class(out, cls, &sums[cls]);
	hz4_pageheap_figures(&pages);
	hz4_large_figures(&large);
	out->metadata = hz4_meta_mapped();
	out->large = large.bytes;
	out->large_objects = large.objects;
	out->mappings = large.mappings;
	out->mapping_bytes = large.mapped;
	out->live += large.bytes;
	out->live_objects += large.objects;
	out->free_pages = pages.free;
	out->dirty_pages = pages.dirty;
	out->mapped = pages.mapped + large.mapped + out->metadata;
}

const char *
hz4_info_flavour(void)
{
	return HZ4_FLAVOUR;
}

struct counter_sum {
	unsigned which, first, end;
	uint64_t value;
};

static void
add_counter(struct hz4_cache *c, void *arg)
{
	struct counter_sum *sum = arg;
	unsigned cls;

	for (cls = sum->first; cls < sum->end; cls++)
		sum->value += hz4_peek(&c->counts[cls].value[sum->which]);
}

uint64_t
hz4_info_counter(unsigned which, unsigned first_cls, unsigned end_cls)
{
	struct counter_sum sum = { which, first_cls, end_cls, 0 };

	if (HZ4_MID_STATS_B1)
		hz4_thread_each(add_counter, &sum);
	return sum.value;
}

/* A buffer that knows how much there would have been. */
struct out {
	char *buffer;
	size_t size;
	size_t used;
};

static void __attribute__((format(printf, 2, 3)))
put(struct out *o, const char *format, ...)
{
	size_t room = o->used < o->size ? o->size - o->used : 0;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(room ? o->buffer + o->used : NULL, room, format, args);
	va_end(args);
	if (n > 0)
		o->used += (size_t)n;
}

static void
put_figure(struct out *o, bool json, const char *name, uint64_t value)
{
	if (json)
		put(o, ",\n  \"%s\": %llu", name, (unsigned long long)value);
	else
		put(o, "%s %llu\n", name, (unsigned long long)value);
}

static uint64_t
sum_of(unsigned which)
{
	return hz4_info_counter(which, 0, HZ4_CLS_VALUES);
}

static void
put_counters(struct out *o, bool json)
{
	unsigned i;

	put_figure(o, json, "malloc_calls",
		   sum_of(HZ4_COUNT_malloc_l0_hit) +
			   sum_of(HZ4_COUNT_malloc_alloc_run_hit) +
			   sum_of(HZ4_COUNT_malloc_lock_path) +
			   sum_of(HZ4_COUNT_malloc_large));
	put_figure(o, json, "free_calls",
		   sum_of(HZ4_COUNT_free_l0_hit) +
			   sum_of(HZ4_COUNT_free_alloc_run_hit) +
			   sum_of(HZ4_COUNT_free_large));
	for (i = 0; i < HZ4_COUNTERS; i++)
		put_figure(o, json, hz4_counter_name(i), sum_of(i));
}

static size_t
report(char *buffer, size_t size, bool json)
{
	struct out o = { buffer, size, 0 };
	struct hz4_info info;

	hz4_info_get(&info);
	if (json)
		put(&o, "{\n  \"schema\": %d,\n  \"version\": \"%s\",\n"
			"  \"flavour\": \"%s\"",
		    SCHEMA, PACKAGE_VERSION, hz4_info_flavour());
	else
		put(&o, "schema %d\nversion %s\nflavour %s\n", SCHEMA,
		    PACKAGE_VERSION, hz4_info_flavour());
#define FIGURE(name) put_figure(&o, json, #name, info.name)
	FIGURE(mapped);
	FIGURE(metadata);
	FIGURE(live);
	FIGURE(live_objects);
	FIGURE(cached);
	FIGURE(cached_objects);
	FIGURE(in_spans);
	FIGURE(spans);
	FIGURE(free_pages);
	FIGURE(dirty_pages);
	FIGURE(large);
	FIGURE(large_objects);
	FIGURE(mappings);
	FIGURE(mapping_bytes);
#undef FIGURE
	if (HZ4_MID_STATS_B1)
		put_counters(&o, json);
	if (json)
		put(&o, "\n}\n");
	return o.used;
}

size_t
hz4_info_text(char *buffer, size_t size)
{
	return report(buffer, size, false);
}

size_t
hz4_info_json(char *buffer, size_t size)
{
	return report(buffer, size, true);
}
