/*
 * info.c - sums over threads, classes and the page heap.
 *
 * Every build tells the truth: what is live follows from what the slow
 * paths count anyway (hz4_tier.net, the spans' and the page heap's sums).
 * No sum walks over spans or objects, so that asking costs the same however
 * large the heap is.
 */
#include "info.h"

#include "guard.h"
#include "holemap.h"
#include "l1.h"
#include "large.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "samples.h"
#include "spans.h"
#include "thread.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const figures[] = {
#define HZ4_FIGURE(name, unit, text) #name,
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
};

static const char *const class_figures[] = {
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) #name,
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
};

const char *
hz4_info_value_name(unsigned i)
{
	return i < HZ4_FIGURES ? figures[i] :
				 hz4_stat_name(i - HZ4_FIGURES);
}

const char *
hz4_info_column_name(unsigned i)
{
	return i < HZ4_CLASS_FIGURES ? class_figures[i] :
				       hz4_stat_name(i - HZ4_CLASS_FIGURES);
}

const char *
hz4_info_flavour(void)
{
	return HZ4_FLAVOUR;
}

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
add_l1(const struct hz4_l1 *l, void *arg)
{
	struct class_sum *sum = arg;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		sum[cls].net += hz4_peek(&l->shelf[cls].net);
		sum[cls].cached += hz4_peek(&l->shelf[cls].count);
	}
}

static uint64_t
not_negative(int64_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

/* The figures of one class; its sums were taken a moment apart. */
static void
class_row(uint64_t *row, unsigned cls, const struct class_sum *sum)
{
	struct hz4_spans_figures f;
	int64_t out = sum->net + hz4_thread_bare_net(cls);

	hz4_spans_figures(cls, &f);
	row[HZ4_CLASS_size] = hz4_sizeclass_usable(cls);
	row[HZ4_CLASS_live_objects] = hz4_samples_objects(cls) +
				      not_negative(out - (int64_t)sum->cached);
	row[HZ4_CLASS_cached_objects] = sum->cached;
	row[HZ4_CLASS_free_objects] = not_negative((int64_t)f.objects - out);
	row[HZ4_CLASS_spans] = f.spans;
}

static void
add_row(struct hz4_info *out, const uint64_t *row)
{
	size_t size = (size_t)row[HZ4_CLASS_size];

	out->live += (size_t)row[HZ4_CLASS_live_objects] * size;
	out->live_objects += (size_t)row[HZ4_CLASS_live_objects];
	out->cached += (size_t)row[HZ4_CLASS_cached_objects] * size;
	out->cached_objects += (size_t)row[HZ4_CLASS_cached_objects];
	out->in_spans += (size_t)row[HZ4_CLASS_free_objects] * size;
	out->spans += (size_t)row[HZ4_CLASS_spans];
}

/* Objects of no bytes have no row of their own: they are in the first. */
static unsigned
row_of(unsigned cls)
{
	if (cls == HZ4_CLS_RUN || cls == HZ4_CLS_MARKED)
		return HZ4_INFO_ROWS - 1;
	return cls == HZ4_CLS_ZERO ? 0 : cls - 1;
}

static void
enter_row(struct hz4_snapshot *table, unsigned cls, const uint64_t *row)
{
	uint64_t *to = table->row[row_of(cls)];
	unsigned i;

	for (i = 0; i < HZ4_CLASS_FIGURES; i++)
		to[i] += row[i];
}

/* The figures, and into `table`, if there is one, those of the classes. */
static void
get(struct hz4_info *out, struct hz4_snapshot *table)
{
	struct class_sum sums[HZ4_CLS_END];
	uint64_t row[HZ4_CLASS_FIGURES];
	struct hz4_pageheap_figures pages;
	struct hz4_large_figures large;
	size_t guarded, bytes, unused;
	unsigned cls;

	hz4_thread_start();
	memset(out, 0, sizeof *out);
	memset(sums, 0, sizeof sums);
	hz4_thread_each(add_cache, sums);
	hz4_l1_each(add_l1, sums);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		class_row(row, cls, &sums[cls]);
		add_row(out, row);
		if (table != NULL)
			enter_row(table, cls, row);
	}
	hz4_pageheap_figures(&pages);
	hz4_large_figures(&large);
	unused = hz4_meta_unused();
	out->metadata = hz4_meta_mapped() - unused;
	out->large = large.bytes;
	out->large_objects = large.objects;
	out->mappings = large.mappings;
	out->mapping_bytes = large.mapped;
	out->live += large.bytes;
	out->live_objects += large.objects;
	hz4_guard_figures(&guarded, &bytes);
	out->live += bytes;
	out->live_objects += guarded;
	out->free_pages = pages.free;
	out->dirty_pages = pages.dirty;
	out->purged_in_spans = hz4_holes();
	out->mapped = pages.mapped + large.mapped + hz4_meta_mapped() +
		      hz4_guard_bytes;
}

void
hz4_info_get(struct hz4_info *out)
{
	get(out, NULL);
}

static void
add_counts(struct hz4_cache *c, void *arg)
{
	struct hz4_snapshot *s = arg;
	struct hz4_counts counts;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_VALUES; cls++) {
		hz4_cache_counts(c, cls, &counts);
		hz4_stat_add(s->row[row_of(cls)] + HZ4_CLASS_FIGURES, &counts);
	}
}

static void
snapshot_counts(struct hz4_snapshot *s)
{
	unsigned cls, row, i;

	hz4_thread_each(add_counts, s);
	for (cls = 1; cls < HZ4_CLS_VALUES; cls++)
		hz4_stat_add(s->row[row_of(cls)] + HZ4_CLASS_FIGURES,
			     hz4_thread_bare_counts(cls));
	for (row = 0; row < HZ4_INFO_ROWS; row++)
		for (i = 0; i != HZ4_STATS; i++)
			s->value[HZ4_FIGURES + i] +=
				s->row[row][HZ4_CLASS_FIGURES + i];
}

void
hz4_info_snapshot(struct hz4_snapshot *out)
{
	union {
		struct hz4_info info;
		size_t value[HZ4_FIGURES];
	} all;
	unsigned i;

	memset(out, 0, sizeof *out);
	get(&all.info, out);
	out->row[row_of(HZ4_CLS_RUN)][HZ4_CLASS_live_objects] =
		all.info.large_objects;
	for (i = 0; i < HZ4_FIGURES; i++)
		out->value[i] = all.value[i];
	if (HZ4_MID_STATS_B1)
		snapshot_counts(out);
}

/* A buffer that knows how much there would have been. */
struct out {
	char *buffer;
	size_t size;
	size_t used;
	enum hz4_form form;
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
put_value(struct out *o, const char *name, uint64_t value)
{
	if (o->form == HZ4_JSON)
		put(o, ",\n  \"%s\": %llu", name, (unsigned long long)value);
	else
		put(o, "%s %*llu\n", name, o->form == HZ4_TEXT_FIXED ? 20 : 0,
		    (unsigned long long)value);
}

static void
put_row(struct out *o, const uint64_t *row, bool first)
{
	unsigned long long size = row[HZ4_CLASS_size];
	unsigned i;

	if (o->form == HZ4_JSON) {
		put(o, "%s\n    {\"size\": %llu", first ? "" : ",", size);
		for (i = 1; i < HZ4_INFO_COLUMNS; i++)
			put(o, ", \"%s\": %llu", hz4_info_column_name(i),
			    (unsigned long long)row[i]);
		put(o, "}");
		return;
	}
	for (i = 1; i < HZ4_INFO_COLUMNS; i++) {
		put(o, "class.%llu.", size);
		put_value(o, hz4_info_column_name(i), row[i]);
	}
}

/* Nothing of this class was ever there. */
static bool
is_unused(const uint64_t *row)
{
	unsigned i;

	for (i = 1; i < HZ4_INFO_COLUMNS; i++)
		if (row[i] != 0)
			return false;
	return true;
}

static void
put_classes(struct out *o, const struct hz4_snapshot *s)
{
	bool first = true;
	unsigned i;

	if (o->form == HZ4_JSON)
		put(o, ",\n  \"classes\": [");
	for (i = 0; i < HZ4_INFO_ROWS; i++) {
		if (o->form != HZ4_TEXT_FIXED && is_unused(s->row[i]))
			continue;
		put_row(o, s->row[i], first);
		first = false;
	}
	if (o->form == HZ4_JSON)
		put(o, "\n  ]");
}

static void
put_all(struct out *o, const struct hz4_snapshot *s)
{
	unsigned i;

	put(o, o->form == HZ4_JSON ? "{\n  \"schema\": %d,\n"
				     "  \"version\": \"%s\",\n"
				     "  \"flavour\": \"%s\"" :
				     "schema %d\nversion %s\nflavour %s\n",
	    HZ4_INFO_SCHEMA, PACKAGE_VERSION, hz4_info_flavour());
	for (i = 0; i < HZ4_INFO_VALUES; i++)
		put_value(o, hz4_info_value_name(i), s->value[i]);
	if (hz4_option(HZ4_OPT_stats_classes))
		put_classes(o, s);
	if (o->form == HZ4_JSON)
		put(o, "\n}\n");
}

size_t
hz4_info_render(char *buffer, size_t size, enum hz4_form form,
		const struct hz4_snapshot *s)
{
	struct out o = { buffer, size, 0, form };

	put_all(&o, s);
	return o.used;
}

size_t
hz4_info_report(char *buffer, size_t size, enum hz4_form form)
{
	struct hz4_snapshot *s = hz4_meta_alloc(sizeof *s);
	size_t n = 0;

	if (size > 0)
		buffer[0] = '\0';
	if (s == NULL)
		return 0;
	hz4_info_snapshot(s);
	n = hz4_info_render(buffer, size, form, s);
	hz4_meta_free(s, sizeof *s);
	return n;
}

static void
put_arena(struct out *o, const char *name, uint64_t system, uint64_t used)
{
	put(o,
	    "%s:\n"
	    "system bytes     = %10llu\n"
	    "in use bytes     = %10llu\n",
	    name, (unsigned long long)system, (unsigned long long)used);
}

/* glibc's lines, which scripts look for, with its meaning; then ours. */
static size_t
render_as_glibc(char *buffer, size_t size, const struct hz4_snapshot *s,
		const struct hz4_large_figures *large)
{
	struct out o = { buffer, size, 0, HZ4_TEXT };
	uint64_t system = s->value[HZ4_FIGURE_mapped];
	uint64_t used = s->value[HZ4_FIGURE_live];
	uint64_t own = s->value[HZ4_FIGURE_mapping_bytes];

	put_arena(&o, "Arena 0", system - own, used - own);
	put_arena(&o, "Total (incl. mmap)", system, used);
	put(&o,
	    "max mmap regions = %10zu\n"
	    "max mmap bytes   = %10zu\n",
	    large->most_mappings, large->most_mapped);
	put_all(&o, s);
	return o.used;
}

static void
print(int fd, const struct hz4_snapshot *s)
{
	struct hz4_large_figures large;
	size_t size, n;
	char *text;

	hz4_large_figures(&large);
	size = render_as_glibc(NULL, 0, s, &large) + 1;
	text = hz4_meta_alloc(size);
	if (text == NULL)
		return;
	n = render_as_glibc(text, size, s, &large);
	hz4_os_write(fd, text, hz4_min(n, size - 1));
	hz4_meta_free(text, size);
}

void
hz4_info_print(int fd)
{
	struct hz4_snapshot *s = hz4_meta_alloc(sizeof *s);
	int saved = errno;

	if (s == NULL)
		return;
	hz4_info_snapshot(s);
	print(fd, s);
	hz4_meta_free(s, sizeof *s);
	errno = saved;
}
