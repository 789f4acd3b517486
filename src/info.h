/*
 * info.h - figures of the whole heap, for libc's reports, hz4_stats_*, the
 * statistics file and the live page.
 *
 * Layer 4.  Takes HZ4_RANK_THREADS for the list of caches.
 */
#ifndef HZ4_INFO_H
#define HZ4_INFO_H

#include "sizeclass.h"
#include "stats.h"

/* The figures of info.def. */
struct hz4_info {
#define HZ4_FIGURE(name, unit, text) size_t name;
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
};

enum hz4_figure {
#define HZ4_FIGURE(name, unit, text) HZ4_FIGURE_##name,
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	HZ4_FIGURES
};

enum hz4_class_figure {
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) HZ4_CLASS_##name,
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	HZ4_CLASS_FIGURES
};

enum {
	/* Single values, and the columns and rows of the classes' table. */
	HZ4_INFO_VALUES = HZ4_FIGURES + HZ4_STATS,
	HZ4_INFO_COLUMNS = HZ4_CLASS_FIGURES + HZ4_STATS,
	/* Classes that have bytes, and what lies above them. */
	HZ4_INFO_ROWS = HZ4_CLS_ZERO,

	/* The meaning of all names; changes when one of them does. */
	HZ4_INFO_SCHEMA = 1,
};

struct hz4_snapshot {
	uint64_t value[HZ4_INFO_VALUES];
	uint64_t row[HZ4_INFO_ROWS][HZ4_INFO_COLUMNS];
};

const char *hz4_info_value_name(unsigned i);
const char *hz4_info_column_name(unsigned i);

/* Sum up.  While other threads work the figures are a moment's guess. */
void hz4_info_get(struct hz4_info *out);
void hz4_info_snapshot(struct hz4_snapshot *out);

enum hz4_form {
	HZ4_TEXT,	/* "name value" lines */
	HZ4_TEXT_FIXED, /* the same, as long whatever the values are */
	HZ4_JSON,
};

/*
 * A snapshot in words; with the table of classes when the option
 * stats_classes asks for it.  As snprintf: returns the length of the whole,
 * which is cut to size - 1.
 */
size_t hz4_info_render(char *buffer, size_t size, enum hz4_form form,
		       const struct hz4_snapshot *s);

/* The same of this moment.  0, and no text, without memory for it. */
size_t hz4_info_report(char *buffer, size_t size, enum hz4_form form);

/* glibc's malloc_stats and then the text of this moment, to a descriptor. */
void hz4_info_print(int fd);

const char *hz4_info_flavour(void);

#endif
