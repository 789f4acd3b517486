/*
 * livepage.h - the layout of the page that a process publishes and that
 * hz4-stat reads: /dev/shm/hz4-stat.UID.PID.
 *
 *     header | names | values | table of classes
 *
 * The page tells its own names, so a reader needs no knowledge of the
 * build.  Names follow each other, each with its NUL: first those of
 * the `values` single values, then those of the `columns` of the table,
 * whose first column is the size of the class.  Offsets are from the start
 * of the page, values are 64-bit and aligned.
 *
 * Everything but `sequence`, `closed`, `published` and the values is
 * constant once the page has its name.  The values are under a sequence
 * lock: a reader that finds `sequence` odd, or changed after reading, reads
 * again.  A reader trusts nothing here: the file may be anybody's.
 *
 * Layer 0.  Also used by hz4-stat, so without the library's macros.
 */
#ifndef HZ4_LIVEPAGE_H
#define HZ4_LIVEPAGE_H

#include <stdatomic.h>
#include <stdint.h>

#define HZ4_LIVEPAGE_DIRECTORY "/dev/shm"
#define HZ4_LIVEPAGE_PREFIX "hz4-stat."
#define HZ4_LIVEPAGE_MAGIC "hz4live"

/* Changes when a reader of the last layout would read nonsense. */
enum { HZ4_LIVEPAGE_LAYOUT = 1 };

struct hz4_livepage {
	char magic[8];
	uint32_t layout;
	uint32_t bytes;	  /* of the whole page */
	uint32_t schema;  /* of the names, as in hz4_stats_json() */
	uint32_t pid;	  /* in its own namespace */
	uint64_t pid_namespace; /* inode of /proc/self/ns/pid, 0 unknown */
	char version[24];
	char flavour[24];
	uint32_t values, names_at, values_at;
	uint32_t columns, rows, table_at;
	/* Release, against the reader's acquire; odd while it changes. */
	_Atomic uint64_t sequence;
	_Atomic uint64_t published; /* CLOCK_MONOTONIC, ms */
	_Atomic uint32_t closed;    /* the process has ended */
	uint32_t unused;
};

#endif
