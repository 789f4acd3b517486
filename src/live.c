/*
 * live.c - the statistics file and the live page.
 *
 * One thread at a time publishes; others that come by go on.  The word that
 * says so holds the process's generation (lock.h), so that the child of a
 * fork does not wait for a thread that it does not have.  A child finds its
 * parent's files mapped, and that they are not its own by that number before
 * it writes: it lets go of them, and makes its own where names can differ
 * (%p).  Process ids would not do: a child may be number 1 of a namespace of
 * its own, as its parent is.
 *
 * Files are mapped rather than kept open: a program may close all
 * descriptors, or put its own file in the place of one.  They are replaced,
 * never truncated: another process may have the old one mapped.  Each has
 * one name for as long as the process is there, wherever this goes: a
 * relative one is put behind the directory that it started in.
 *
 * Whatever thread comes by does all this in a malloc or free of its own, so
 * nothing here is a point of cancellation or waits.
 */
#include "live.h"

#include "file.h"
#include "info.h"
#include "livepage.h"
#include "lock.h"
#include "log.h"
#include "meta.h"
#include "option.h"
#include "os.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	/* Between two times, and a forked child's patience (ms). */
	INTERVAL = 100,
	/* Publishing takes at most this part of one thread's time. */
	SHARE = 200,
	STOP_TRIES = 1000,
	NAME_BYTES = 64,
};

_Atomic bool hz4_live_on;

/* All but the atomic fields: whoever is `writer`. */
static struct {
	_Atomic uint32_t writer; /* hz4_claim; 0 none */
	_Atomic uint64_t next; /* when, ms [atomic] relaxed: a hint */
	uint64_t started;      /* ms */
	/* The process whose files these are. */
	uint32_t generation;
	int pid;
	bool wants_file, wants_page; /* and has none yet */
	struct hz4_snapshot *snapshot;

	char *text;	       /* the file's mapping */
	char *draft;	       /* its text and a NUL */
	size_t draft_bytes;
	dev_t device;	       /* of the file, to know it again */
	ino_t inode;

	char page_file[NAME_BYTES];
	struct hz4_livepage *page;
	size_t page_bytes;

	char file[PATH_MAX + HZ4_OPTION_PATH_MAX + 24]; /* %p replaced */
} live;

/*
 * A new file of ours with these contents, mapped.  Written first: a full
 * disk is an error then, and a signal once the file is mapped.
 */
static void *
make_file(const char *path, const char *contents, size_t size)
{
	int fd = hz4_os_create(path);
	void *p = NULL;
	int saved;

	if (fd == -1)
		return NULL;
	if (hz4_os_extend(fd, contents, size))
		p = hz4_os_map_file(fd, size);
	saved = errno;
	hz4_os_close(fd);
	if (p == NULL)
		unlink(path);
	errno = saved;
	return p;
}

static uint64_t
own_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

/*
 * Whether the page of this name may be that of a live process: one that has
 * our number in another namespace, where /dev/shm is the same.
 */
static bool
is_of_another_namespace(void)
{
	int fd = hz4_os_open(live.page_file);
	struct hz4_livepage head;
	bool whole;

	if (fd == -1)
		return true;
	whole = hz4_os_read(fd, &head, sizeof head);
	hz4_os_close(fd);
	return whole && head.pid_namespace != own_namespace();
}

/*
 * The page's name is free, or what has it is left over from a process that
 * had our number, or from this one before it called exec.
 */
static bool
clear_page_name(void)
{
	struct stat st;

	if (lstat(live.page_file, &st) != 0)
		return errno == ENOENT;
	errno = EEXIST;
	return S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	       !is_of_another_namespace() && unlink(live.page_file) == 0;
}

static size_t
put_names(char *to)
{
	size_t n = 0;
	unsigned i;

	for (i = 0; i < HZ4_INFO_VALUES + HZ4_INFO_COLUMNS; i++) {
		const char *name = i < HZ4_INFO_VALUES ?
			hz4_info_value_name(i) :
			hz4_info_column_name(i - HZ4_INFO_VALUES);
		size_t length = strlen(name) + 1;

		if (to != NULL)
			memcpy(to + n, name, length);
		n += length;
	}
	return n;
}

static void
describe_page(struct hz4_livepage *page, size_t bytes)
{
	memset(page, 0, bytes);
	memcpy(page->magic, HZ4_LIVEPAGE_MAGIC, sizeof page->magic);
	page->layout = HZ4_LIVEPAGE_LAYOUT;
	page->bytes = (uint32_t)bytes;
	page->schema = HZ4_INFO_SCHEMA;
	page->pid = (uint32_t)live.pid;
	page->pid_namespace = own_namespace();
	(void)snprintf(page->version, sizeof page->version, "%s",
		       PACKAGE_VERSION);
	(void)snprintf(page->flavour, sizeof page->flavour, "%s",
		       hz4_info_flavour());
	page->values = HZ4_INFO_VALUES;
	page->columns = HZ4_INFO_COLUMNS;
	page->rows = HZ4_INFO_ROWS;
	page->names_at = sizeof *page;
	page->values_at = (uint32_t)hz4_round_up(sizeof *page +
						 put_names(NULL), 8);
	page->table_at = page->values_at + HZ4_INFO_VALUES * 8;
	put_names((char *)(page + 1));
}

static void
open_page(void)
{
	size_t bytes = hz4_round_up(sizeof *live.page + put_names(NULL), 8) +
		       sizeof *live.snapshot;
	struct hz4_livepage *draft = hz4_meta_alloc(bytes);

	live.wants_page = false;
	if (draft == NULL)
		return;
	describe_page(draft, bytes);
	(void)snprintf(live.page_file, sizeof live.page_file,
		       HZ4_LIVEPAGE_DIRECTORY "/" HZ4_LIVEPAGE_PREFIX "%u.%d",
		       (unsigned)geteuid(), live.pid);
	if (clear_page_name())
		live.page = make_file(live.page_file, (char *)draft, bytes);
	if (live.page == NULL)
		hz4_log("stats_live: cannot create %s: errno %d",
			live.page_file, errno);
	live.page_bytes = bytes;
	hz4_meta_free(draft, bytes);
}

/* How long it is now, whatever there was room for. */
static size_t
draft_text(void)
{
	hz4_info_snapshot(live.snapshot);
	return hz4_info_render(live.draft, live.draft_bytes, HZ4_TEXT_FIXED,
			       live.snapshot);
}

static void
let_go_of_file(void)
{
	if (live.text != NULL)
		hz4_os_unmap(live.text, live.draft_bytes - 1);
	live.text = NULL;
}

/* Room for the sizes of classes, too, or for them no more. */
static void
resize_draft(size_t bytes)
{
	let_go_of_file();
	if (live.draft != NULL)
		hz4_meta_free(live.draft, live.draft_bytes);
	live.draft = hz4_meta_alloc(bytes);
	live.draft_bytes = live.draft != NULL ? bytes : 0;
}

static void
open_file(void)
{
	const char *reason;
	struct stat st;
	size_t n = draft_text();

	live.wants_file = false;
	if (n + 1 != live.draft_bytes) {
		resize_draft(n + 1);
		if (live.draft == NULL)
			return;
		draft_text();
	}
	reason = hz4_file_clear_name(live.file);
	if (reason == NULL)
		live.text = make_file(live.file, live.draft, n);
	if (reason != NULL)
		hz4_log("stats_file: cannot create %s: %s", live.file, reason);
	else if (live.text == NULL)
		hz4_log("stats_file: cannot create %s: errno %d", live.file,
			errno);
	if (live.text != NULL && lstat(live.file, &st) == 0) {
		live.device = st.st_dev;
		live.inode = st.st_ino;
	}
}

/* True when the name differs between processes. */
static bool
expand_path(void)
{
	return hz4_file_expand(live.file, sizeof live.file,
			       hz4_option_path(HZ4_OPT_stats_file), live.pid);
}

static void
store(void *to, const uint64_t *from, size_t n)
{
	_Atomic uint64_t *v = to;
	size_t i;

	for (i = 0; i < n; i++)
		hz4_poke(&v[i], from[i]);
}

/* The writer's half of the sequence lock. */
static void
store_page(uint64_t now)
{
	struct hz4_livepage *page = live.page;
	uint64_t sequence = hz4_peek(&page->sequence);

	hz4_poke(&page->sequence, sequence + 1);
	/* Values come after the odd number: the reader's acquire fence. */
	atomic_thread_fence(memory_order_release);
	store((char *)page + page->values_at, live.snapshot->value,
	      HZ4_INFO_VALUES);
	store((char *)page + page->table_at, live.snapshot->row[0],
	      (size_t)HZ4_INFO_ROWS * HZ4_INFO_COLUMNS);
	hz4_poke(&page->published, now);
	/* And before the even one: the reader's acquire load. */
	atomic_store_explicit(&page->sequence, sequence + 2,
			      memory_order_release);
}

static void
publish(uint64_t now)
{
	if (live.text == NULL)
		hz4_info_snapshot(live.snapshot);
	else if (draft_text() + 1 == live.draft_bytes)
		memcpy(live.text, live.draft, live.draft_bytes - 1);
	else
		open_file();	/* stats_classes was set */
	if (live.page != NULL)
		store_page(now);
}

static void
own_it(void)
{
	live.generation = hz4_fork_generation();
	live.pid = getpid();
}

/* The id is for kernels that clear no memory in a child. */
static bool
is_own(void)
{
	return live.generation == hz4_fork_generation() &&
	       live.pid == getpid();
}

/* In a forked child: the parent's files are not ours. */
static void
leave_parent(void)
{
	let_go_of_file();
	if (live.page != NULL)
		hz4_os_unmap(live.page, live.page_bytes);
	live.page = NULL;
	own_it();
	live.wants_page = HZ4_MID_STATS_B1 && hz4_option(HZ4_OPT_stats_live);
	live.wants_file = hz4_option_path(HZ4_OPT_stats_file)[0] != '\0' &&
			  expand_path();
}

static void
open_wanted(void)
{
	if (live.wants_file)
		open_file();
	if (live.wants_page)
		open_page();
}

/*
 * Often while the process is young, so that something is there when it
 * leaves early; rarely when publishing is dear: many threads.
 */
static void
publish_and_wait(uint64_t now)
{
	uint64_t start, wait;

	open_wanted();
	/* What else runs on the machine is not the price of publishing. */
	start = hz4_os_cpu_us();
	publish(now);
	wait = (hz4_os_cpu_us() - start) * SHARE / 1000;
	wait = hz4_max(wait, hz4_min(now - live.started, INTERVAL));
	hz4_poke(&live.next, now + wait);
}

HZ4_SLOW void
hz4_live_tick_slow(void)
{
	uint64_t now = hz4_os_now();
	int saved;

	if (now < hz4_peek(&live.next))
		return;
	saved = errno;
	if (!hz4_claim(&live.writer))
		return;
	if (!is_own()) {
		/* A child that calls exec soon need not make files. */
		leave_parent();
		live.started = now;
		hz4_poke(&live.next, now + INTERVAL);
	} else if (now >= hz4_peek(&live.next)) {
		publish_and_wait(now);
	}
	hz4_unclaim(&live.writer);
	errno = saved;
}

void
hz4_live_start(void)
{
	int saved = errno;
	bool page = hz4_option(HZ4_OPT_stats_live) != 0;
	bool file = hz4_option_path(HZ4_OPT_stats_file)[0] != '\0';

	if (page && !HZ4_MID_STATS_B1) {
		hz4_log("stats_live needs a build with --enable-stats");
		page = false;
	}
	/* hz4_default_options may ask where the environment must not. */
	if ((!page && !file) || getauxval(AT_SECURE))
		return;
	live.wants_page = page;
	live.wants_file = file;
	live.snapshot = hz4_meta_alloc(sizeof *live.snapshot);
	if (live.snapshot == NULL || !hz4_claim(&live.writer))
		return;
	own_it();
	live.started = hz4_os_now();
	hz4_file_note_directory();
	expand_path();
	publish_and_wait(live.started);
	hz4_poke(&hz4_live_on, true);
	hz4_unclaim(&live.writer);
	errno = saved;
}

/* Another process with the same path may have replaced the file. */
static void
reclaim_file(void)
{
	struct stat st;

	if (live.text == NULL ||
	    (lstat(live.file, &st) == 0 && st.st_dev == live.device &&
	     st.st_ino == live.inode))
		return;
	let_go_of_file();
	open_file();
}

static void
finish(void)
{
	if (!is_own())
		leave_parent();
	if (live.wants_file)
		open_file();
	reclaim_file();
	publish(hz4_os_now());
	if (live.page == NULL)
		return;
	hz4_poke(&live.page->closed, 1);
	unlink(live.page_file);
}

void
hz4_live_stop(void)
{
	int saved = errno, tries;

	if (!hz4_peek(&hz4_live_on))
		return;
	hz4_poke(&hz4_live_on, false);
	for (tries = 0; !hz4_claim(&live.writer); tries++) {
		if (tries == STOP_TRIES)
			return;
		hz4_os_yield();
	}
	finish();
	/* Never released: threads that still run have nothing to publish. */
	errno = saved;
}
