/*
 * note.c - the view (view.h), to which the library's note leads.  That is in
 * thread.c, so that every static program has both.
 */
#include "holemap.h"
#include "info.h"
#include "os.h"
#include "pagemap.h"
#include "pageruns.h"
#include "shard.h"
#include "spanlists.h"
#include "stacks.h"
#include "view.h"

/* The compiler does not look into the note. */
extern const struct hz4_view hz4_view;

__attribute__((used)) const struct hz4_view hz4_view = {
	.magic = HZ4_VIEW_MAGIC,
	.layout = HZ4_VIEW_LAYOUT,
	.bytes = sizeof hz4_view,
	.version = PACKAGE_VERSION,
	.flavour = HZ4_FLAVOUR,
	.schema = HZ4_INFO_SCHEMA,
	.classes = HZ4_CLS_END,
	.run = HZ4_CLS_RUN,
	.marked = HZ4_CLS_MARKED,
	.page_shift = HZ4_PAGE_SHIFT,
	.leaf_shift = HZ4_LEAF_SHIFT,
	.class_unit = HZ4_STACK_BYTES,
	.ready = HZ4_VIEW_OF(hz4_classes[1].size),

	.threads = (uintptr_t)&hz4_view_threads,
	.l1 = (uintptr_t)&hz4_view_l1,
	.meta = (uintptr_t)&hz4_view_meta,
	.large = (uintptr_t)&hz4_view_large,
	.samples = (uintptr_t)&hz4_view_samples,
	.guards = (uintptr_t)&hz4_view_guards,

	.mapped = HZ4_VIEW_OF(hz4_runs_hints.mapped),
	.free_pages = HZ4_VIEW_OF(hz4_runs_hints.free),
	.dirty_pages = HZ4_VIEW_OF(hz4_runs_hints.dirty),
	.purged = HZ4_VIEW_OF(hz4_holes_purged),
	.os_page = HZ4_VIEW_OF(hz4_os_page),
	.size = HZ4_VIEW_EACH(hz4_classes[0].size, sizeof hz4_classes[0]),
	.slots = HZ4_VIEW_EACH(hz4_classes[0].slots, sizeof hz4_classes[0]),
	.spans = HZ4_VIEW_EACH(hz4_lists[0].spans, sizeof hz4_lists[0]),
	.last_shard = HZ4_VIEW_OF(hz4_last_shard),
	.shard_stride = HZ4_CLS_END * sizeof hz4_lists[0],

	.cache_net = HZ4_VIEW_MEMBER_EACH(struct hz4_cache, tier[0].net,
					  sizeof(struct hz4_tier)),
	.cache_gone = HZ4_VIEW_MEMBER_EACH(struct hz4_cache, tier[0].gone,
					   sizeof(struct hz4_tier)),
	.cache_top = HZ4_VIEW_MEMBER_EACH(struct hz4_cache, stack[0].top,
					  sizeof(struct hz4_stack)),
	.cache_base = HZ4_VIEW_MEMBER_EACH(struct hz4_cache, stack[0].base,
					   sizeof(struct hz4_stack)),
	.cache_bytes = sizeof(struct hz4_cache),

	.root = HZ4_VIEW_EACH(hz4_pagemap.root[0], sizeof hz4_pagemap.root[0]),
	.zeros = (uintptr_t)hz4_pagemap.zeros,
	.leaf_class = HZ4_VIEW_MEMBER_EACH(struct hz4_leaf, entry[0],
					   sizeof(uint16_t)),
	.leaf_owner = HZ4_VIEW_MEMBER_EACH(struct hz4_leaf, owner[0],
					   sizeof(void *)),

	.span_start = HZ4_VIEW_MEMBER(struct hz4_span, start),
	.span_bits = HZ4_VIEW_MEMBER_EACH(struct hz4_span, bits[0],
					  sizeof(uint64_t)),
	.large_start = HZ4_VIEW_MEMBER(struct hz4_large, start),
	.large_bytes = HZ4_VIEW_MEMBER(struct hz4_large, bytes),
	.large_asked = HZ4_VIEW_MEMBER(struct hz4_large, asked),
	.large_site = HZ4_VIEW_MEMBER(struct hz4_large, sample.site),

	.options = (uintptr_t)&hz4_view_options,
	.file = (uintptr_t)&hz4_view_file,
};
