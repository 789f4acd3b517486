/*
 * stat-memory.c - the figures that every build has, read from the process's
 * memory (target.h) without its help.
 *
 * Every length and number of rounds has a bound, and what makes no sense counts
 * as 0: the process may be changing it, or may want to deceive.
 */
#include "config.h"

#include "stat.h"
#include "target.h"

#include <stdlib.h>
#include <string.h>

enum {
	MOST_CLASSES = 256,
	MOST_SHARDS = 64,
	MOST_L1S = 65536,
	MOST_CACHES = 1 << 20,
	MOST_BYTES = 1 << 20, /* of one structure or array */
	MOST_MIB = 4096,      /* of all caches, should their list be a ring */
};

enum value {
#define HZ4_FIGURE(name, unit, text) VALUE_##name,
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	VALUES
};

enum column {
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) COLUMN_##name,
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	COLUMNS
};

static const char *const names[] = {
#define HZ4_FIGURE(name, unit, text) #name,
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) #name,
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
};

/* Sums over caches for one class. */
struct sum {
	int64_t net;
	uint64_t cached;
};

static struct {
	struct target target;
	/* The parts of its view. */
	struct hz4_view_threads threads;
	struct hz4_view_l1 l1;
	struct hz4_view_meta meta;
	struct hz4_view_large large;
	struct hz4_view_samples samples;
	struct hz4_view_guards guards;
	char *buffer; /* MOST_BYTES */
	struct sum sum[MOST_CLASSES];
} memory;

/* --- copying --------------------------------------------------------- */

static bool
get(uint64_t at, void *to, size_t bytes)
{
	return target_get(&memory.target, at, to, bytes);
}

/* The number `i` of a structure of `bytes` that was copied. */
static uint64_t
pick(size_t bytes, const struct hz4_view_number *n, size_t i)
{
	uint64_t at;

	if (n->at > bytes || n->stride > MOST_BYTES || i > MOST_CLASSES ||
	    n->width > 8)
		return 0;
	at = n->at + i * n->stride;
	return at + n->width <= bytes ?
		       target_decode(memory.buffer + at, n->width) :
		       0;
}

/* `count` numbers that lie in an array. */
static void
get_numbers(const struct hz4_view_number *from, uint64_t offset,
	    size_t count, uint64_t *to)
{
	struct hz4_view_number n = *from;
	size_t i, bytes;

	memset(to, 0, count * sizeof *to);
	if (n.stride > MOST_BYTES / MOST_CLASSES || n.width > 8 || count == 0)
		return;
	bytes = (count - 1) * n.stride + n.width;
	n.at = 0;
	if (!get(from->at + offset, memory.buffer, bytes))
		return;
	for (i = 0; i < count; i++)
		to[i] = pick(bytes, &n, i);
}

static uint64_t
get_number(const struct hz4_view_number *from)
{
	return target_number(&memory.target, from);
}

/* --- finding --------------------------------------------------------- */

static bool
is_sound(const struct hz4_view *v)
{
	return stat_is_text(v->version, sizeof v->version) &&
	       stat_is_text(v->flavour, sizeof v->flavour) &&
	       v->classes > 2 && v->classes <= MOST_CLASSES &&
	       v->cache_bytes <= MOST_BYTES && v->shard_stride <= MOST_BYTES;
}

static bool
get_parts(void)
{
	const struct hz4_view *v = &memory.target.view;

	return get(v->threads, &memory.threads, sizeof memory.threads) &&
	       get(v->l1, &memory.l1, sizeof memory.l1) &&
	       get(v->meta, &memory.meta, sizeof memory.meta) &&
	       get(v->large, &memory.large, sizeof memory.large) &&
	       get(v->samples, &memory.samples, sizeof memory.samples) &&
	       get(v->guards, &memory.guards, sizeof memory.guards) &&
	       memory.l1.bytes <= MOST_BYTES;
}

static bool
describe(struct figures *f)
{
	const struct hz4_view *v = &memory.target.view;

	f->schema = v->schema;
	memcpy(f->version, v->version, sizeof f->version);
	memcpy(f->flavour, v->flavour, sizeof f->flavour);
	f->values = VALUES;
	f->columns = COLUMNS;
	f->rows = v->classes - 1;
	f->names = calloc(VALUES + COLUMNS, sizeof *f->names);
	if (f->names != NULL)
		memcpy(f->names, names, sizeof names);
	return f->names != NULL && figures_make(f);
}

enum status
memory_open(struct figures *f)
{
	if (memory.buffer == NULL)
		memory.buffer = need(malloc(MOST_BYTES));
	if (!target_find(&memory.target, f->pid))
		return target_explain(&memory.target, f->pid);
	if (!is_sound(&memory.target.view) || !get_parts())
		return target_is_other(f->pid);
	if (get_number(&memory.target.view.ready) == 0)
		return complain(FAILED, "process %d has not allocated yet",
				f->pid);
	return describe(f) ? OK : complain(FAILED, "no memory");
}

/* --- sums ------------------------------------------------------------ */

static void
add_cache(void)
{
	const struct hz4_view *v = &memory.target.view;
	size_t bytes = (size_t)v->cache_bytes, cls;
	uint64_t top, base;

	for (cls = 1; cls < v->classes; cls++) {
		struct sum *s = &memory.sum[cls];

		s->net += (int64_t)pick(bytes, &v->cache_net, cls);
		top = pick(bytes, &v->cache_top, cls);
		base = pick(bytes, &v->cache_base, cls);
		if (base == 0)
			continue;
		base += pick(bytes, &v->cache_gone, cls) * v->cache_base.width;
		/* It may just be moving. */
		if (top > base && top - base < MOST_BYTES)
			s->cached += (top - base) / v->cache_base.width;
	}
}

static void
add_caches(void)
{
	uint64_t at = get_number(&memory.threads.caches);
	struct hz4_view_number older = memory.threads.older;
	uint64_t copied = 0;
	unsigned n;

	for (n = 0; at != 0 && n < MOST_CACHES && copied >> 20 < MOST_MIB;
	     n++) {
		if (!get(at, memory.buffer, (size_t)memory.target.view.cache_bytes))
			break;
		copied += memory.target.view.cache_bytes;
		add_cache();
		older.at = at + memory.threads.older.at;
		at = get_number(&older);
	}
}

static void
add_l1s(void)
{
	const struct hz4_view *v = &memory.target.view;
	struct hz4_view_number l1 = memory.l1.all;
	uint64_t at, i, n = get_number(&memory.l1.end);
	size_t bytes = (size_t)memory.l1.bytes, cls;

	for (i = 0; i < n && i < MOST_L1S; i++, l1.at += l1.stride) {
		at = get_number(&l1);
		if (at == 0 || !get(at, memory.buffer, bytes))
			continue;
		for (cls = 1; cls < v->classes; cls++) {
			memory.sum[cls].net += (int64_t)pick(
				bytes, &memory.l1.net, cls);
			memory.sum[cls].cached += pick(bytes, &memory.l1.count,
						       cls);
		}
	}
}

static uint64_t
not_negative(int64_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

/* The row of one class, as class_row of src/info.c has it. */
static void
add_row(struct figures *f, size_t cls, const uint64_t *sampled, uint64_t size,
	uint64_t slots, uint64_t spans)
{
	size_t last = memory.target.view.classes - 1;
	uint64_t *row = f->now + f->values +
			(cls == last ? 0 : cls - 1) * f->columns;
	const struct sum *s = &memory.sum[cls];
	uint64_t live = sampled[cls] +
			not_negative(s->net - (int64_t)s->cached);
	uint64_t left = not_negative((int64_t)(spans * slots) - s->net);

	size = cls == last ? 0 : size;
	row[COLUMN_size] += size;
	row[COLUMN_live_objects] += live;
	row[COLUMN_cached_objects] += s->cached;
	row[COLUMN_free_objects] += left;
	row[COLUMN_spans] += spans;
	f->now[VALUE_live] += live * size;
	f->now[VALUE_live_objects] += live;
	f->now[VALUE_cached] += s->cached * size;
	f->now[VALUE_cached_objects] += s->cached;
	f->now[VALUE_in_spans] += left * size;
	f->now[VALUE_spans] += spans;
}

static void
add_classes(struct figures *f)
{
	const struct hz4_view *v = &memory.target.view;
	uint64_t bare[MOST_CLASSES], sampled[MOST_CLASSES];
	uint64_t size[MOST_CLASSES], slots[MOST_CLASSES], n[MOST_CLASSES];
	uint64_t spans[MOST_CLASSES] = { 0 };
	uint64_t shard, shards = get_number(&v->last_shard) + 1;
	size_t cls;

	get_numbers(&memory.threads.bare_net, 0, v->classes, bare);
	get_numbers(&memory.samples.objects, 0, v->classes, sampled);
	get_numbers(&v->size, 0, v->classes, size);
	get_numbers(&v->slots, 0, v->classes, slots);
	for (shard = 0; shard < shards && shard < MOST_SHARDS; shard++) {
		get_numbers(&v->spans, shard * v->shard_stride,
			    v->classes, n);
		for (cls = 1; cls < v->classes; cls++)
			spans[cls] += n[cls];
	}
	for (cls = 1; cls < v->classes; cls++) {
		memory.sum[cls].net += (int64_t)bare[cls];
		add_row(f, cls, sampled, size[cls], slots[cls], spans[cls]);
	}
}

static void
add_whole(struct figures *f)
{
	const struct hz4_view *v = &memory.target.view;
	uint64_t page = UINT64_C(1) << v->page_shift % 32;
	uint64_t objects[2], bytes[2], unused, mapped;

	get_numbers(&memory.large.objects, 0, 2, objects);
	get_numbers(&memory.large.bytes, 0, 2, bytes);
	/* Asked for first: a chunk that comes meanwhile counts in both. */
	unused = get_number(&memory.meta.unused);
	mapped = get_number(&memory.meta.mapped);
	f->now[VALUE_metadata] = mapped > unused ? mapped - unused : 0;
	f->now[VALUE_large] = bytes[0] + bytes[1];
	f->now[VALUE_large_objects] = objects[0] + objects[1];
	f->now[VALUE_mappings] = objects[1];
	f->now[VALUE_mapping_bytes] = bytes[1];
	f->now[VALUE_live] += bytes[0] + bytes[1] +
			      get_number(&memory.guards.bytes);
	f->now[VALUE_live_objects] += objects[0] + objects[1] +
				      get_number(&memory.guards.objects);
	f->now[VALUE_free_pages] = get_number(&v->free_pages) * page;
	f->now[VALUE_dirty_pages] = get_number(&v->dirty_pages) * page;
	f->now[VALUE_purged_in_spans] =
		get_number(&v->purged) * get_number(&v->os_page);
	f->now[VALUE_mapped] = get_number(&v->mapped) + bytes[1] +
			       get_number(&memory.meta.mapped) +
			       get_number(&memory.guards.mapped);
	f->now[f->cells - f->columns + COLUMN_live_objects] =
		objects[0] + objects[1];
}

enum status
memory_read(struct figures *f)
{
	struct hz4_view view = { .layout = 0 };

	/* The program may have been replaced by another one. */
	if (!get(memory.target.at, &view, sizeof view) ||
	    memcmp(&view, &memory.target.view, sizeof view) != 0)
		return FAILED;
	memset(memory.sum, 0, sizeof memory.sum);
	memset(f->now, 0, f->cells * sizeof *f->now);
	f->published = stat_now();
	add_caches();
	add_l1s();
	add_classes(f);
	add_whole(f);
	return OK;
}
