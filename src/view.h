/*
 * view.h - where the figures of a process are, for who reads its memory from
 * outside: hz4-stat, and the debugger's script.
 *
 * Every copy of the library has a note "hz4" (thread.c), which no strip takes
 * away and which leads to its one struct hz4_view.  That tells addresses, and
 * where in a structure a member is, so a reader needs to know neither the
 * build nor its debugging information.  All of it is constant.  A reader trusts
 * nothing here: what it reads may be changing, and may be anybody's.
 *
 * Layer 0.  Also used by the tools, so without the library's macros.
 */
#ifndef HZ4_VIEW_H
#define HZ4_VIEW_H

#include <stddef.h>
#include <stdint.h>

#define HZ4_VIEW_MAGIC "hz4view"

/* Changes when a reader of the last layout would read nonsense. */
enum { HZ4_VIEW_LAYOUT = 1 };

/*
 * A number of `width` bytes at an address, or so far into a structure; or one
 * every `stride` bytes from there.
 */
struct hz4_view_number {
	uintptr_t at;
	uint32_t stride, width;
};

/* Each module tells of its own variables and types. */

/* Of threads (thread.c) and of their caches, each leading to an older one. */
struct hz4_view_threads {
	struct hz4_view_number caches, older;
	struct hz4_view_number bare_net; /* of each class, as the next two */
};

/* CPUs' caches (l1.c): an array of them, how many, and of each class: */
struct hz4_view_l1 {
	struct hz4_view_number all, end;
	struct hz4_view_number net, count, array;
	uintptr_t bytes; /* of one */
};

struct hz4_view_meta {
	struct hz4_view_number mapped, unused;
};

/* Large objects: runs first, then mappings; and one of them. */
struct hz4_view_large {
	struct hz4_view_number objects, bytes;
};

/* Sampled objects of each class; a slab of them; and a stack. */
struct hz4_view_samples {
	struct hz4_view_number objects;
	struct hz4_view_number start, cls, sites, sizes;
	struct hz4_view_number depth, frames;
};

/* Guarded objects, one in a slot. */
struct hz4_view_guards {
	struct hz4_view_number mapped, objects, bytes;
	struct hz4_view_number pool, slots;
	struct hz4_view_number object, size, state, depth, frames;
	uintptr_t slot_count, slot_bytes;
};

/*
 * What was asked of the heap profile: which signal, and texts of less than
 * `width` bytes, for its files.  These lie where the process was started, if
 * the directory is known.
 */
struct hz4_view_options {
	struct hz4_view_number profile_signal, profile_file;
};
struct hz4_view_file {
	struct hz4_view_number directory;
};

struct hz4_view {
	char magic[8];
	uint32_t layout;
	uint32_t bytes; /* of this structure */
	char version[24];
	char flavour[24];
	uint32_t schema;      /* of the figures' names: HZ4_INFO_SCHEMA */
	uint32_t classes;     /* from 1 to below; the last one has no bytes */
	uint32_t run, marked; /* classes of pages that are large or samples' */
	uint32_t page_shift;
	uint32_t leaf_shift, class_unit;
	uint32_t unused;
	struct hz4_view_number ready; /* not 0: the process has allocated */

	/* Addresses of the modules' parts. */
	uintptr_t threads, l1, meta, large, samples, guards;

	/* The page heap.  Of each class; `spans` of each shard, too. */
	struct hz4_view_number mapped, free_pages, dirty_pages;
	struct hz4_view_number purged, os_page; /* in spans, in OS pages */
	struct hz4_view_number size, slots, spans, last_shard;
	uintptr_t shard_stride;

	/* A cache: of each class. */
	struct hz4_view_number cache_net, cache_top, cache_base, cache_gone;
	uintptr_t cache_bytes;

	/* From an address to its page's class, times the unit, and owner. */
	struct hz4_view_number root, leaf_class, leaf_owner;
	uintptr_t zeros;

	/* Two kinds of owners; the third is a slab of samples. */
	struct hz4_view_number span_start, span_bits;
	struct hz4_view_number large_start, large_bytes, large_asked;
	struct hz4_view_number large_site;

	/* Addresses of two more parts. */
	uintptr_t options, file;
};

/* For the initialisers of these: a variable, a member of a type. */
#define HZ4_VIEW_OF(x) { (uintptr_t)&(x), 0, sizeof(x) }
#define HZ4_VIEW_MEMBER(type, member) \
	{ offsetof(type, member), 0, sizeof(((type *)NULL)->member) }
/* The same, one each so many bytes. */
#define HZ4_VIEW_EACH(x, bytes) \
	{ (uintptr_t)&(x), (uint32_t)(bytes), sizeof(x) }
#define HZ4_VIEW_MEMBER_EACH(type, member, bytes) \
	{ offsetof(type, member), (uint32_t)(bytes), \
	  sizeof(((type *)NULL)->member) }

/* The parts, each in its module.  The tools have none. */
extern const struct hz4_view_threads hz4_view_threads;
extern const struct hz4_view_l1 hz4_view_l1;
extern const struct hz4_view_meta hz4_view_meta;
extern const struct hz4_view_large hz4_view_large;
extern const struct hz4_view_samples hz4_view_samples;
extern const struct hz4_view_guards hz4_view_guards;
extern const struct hz4_view_options hz4_view_options;
extern const struct hz4_view_file hz4_view_file;

#endif
