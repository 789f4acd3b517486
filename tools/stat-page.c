/*
 * stat-page.c - the page that a process publishes with
 * HZ4_OPTIONS=stats_live=1 in builds with statistics.
 *
 * Reads what src/livepage.h says and trusts nothing in it: whoever may write
 * to /dev/shm can leave a file there.  A page counts as a process's own when
 * that process has it mapped, and the file, the process and the name are one
 * user's.  Its whole text is copied once; what is checked and shown is the
 * copy, and of what is mapped only the values are looked at later.  A file
 * that was cut meanwhile ends in SIGBUS, see cut().
 */
#include "config.h"

#include "livepage.h"
#include "stat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MAX_BYTES = 16 * 1024 * 1024,
	TRIES = 1000, /* of a millisecond, for a page that is changing */
	PATH_BYTES = 300,
};

/* A page that was looked at closely enough to be read. */
static struct page {
	char path[PATH_BYTES];
	const struct hz4_livepage *map; /* for what changes, and nothing else */
	struct hz4_livepage *copy;	/* of the whole page, once */
	size_t bytes;
	uid_t uid;   /* the file's, the process's, that of the name */
	ino_t inode; /* the file's */
} page;

/* --- which file ------------------------------------------------------ */

enum mapped { MAPPED, NOT_MAPPED, NOT_TOLD };

/* Whether a process has the file of that path mapped. */
static enum mapped
has_mapped(int pid, const char *path)
{
	long task;
	char *maps = proc_maps(pid, &task), *line, *rest = maps, *at;
	enum mapped found = maps != NULL ? NOT_MAPPED : NOT_TOLD;

	while (found != MAPPED && (line = strsep(&rest, "\n")) != NULL) {
		at = strchr(line, '/');
		if (at != NULL && strcmp(at, path) == 0)
			found = MAPPED;
	}
	free(maps);
	return found;
}

/* The file of that name, not followed if it is a link, is the user's. */
static bool
is_users_file(const char *path, uid_t uid)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	       st.st_uid == uid;
}

/* A decimal number up to `most`; NULL, or what comes behind it. */
static const char *
parse_number(const char *text, unsigned long most, unsigned long *n)
{
	char *end;

	if (*text < '0' || *text > '9')
		return NULL;
	errno = 0;
	*n = strtoul(text, &end, 10);
	return errno == 0 && *n <= most ? end : NULL;
}

/* The user and process of a page's name "hz4-stat.UID.PID". */
static bool
parse_name(const char *name, unsigned *uid, int *pid)
{
	const size_t prefix = sizeof HZ4_LIVEPAGE_PREFIX - 1;
	unsigned long u, p;

	if (strncmp(name, HZ4_LIVEPAGE_PREFIX, prefix) != 0)
		return false;
	name = parse_number(name + prefix, UINT_MAX, &u);
	if (name == NULL || *name != '.')
		return false;
	name = parse_number(name + 1, INT_MAX, &p);
	if (name == NULL || *name != '\0' || p == 0)
		return false;
	*uid = (unsigned)u;
	*pid = (int)p;
	return true;
}

static uint64_t
own_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

/* A page of our own user whose process is gone: nobody else removes it. */
static void
remove_if_stale(const char *path, unsigned uid, int pid)
{
	struct hz4_livepage head;
	struct stat st;
	int fd;

	if (uid != geteuid() || process_exists(pid))
		return;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1)
		return;
	/* Processes of another namespace are not seen from here. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == uid &&
	    read(fd, &head, sizeof head) == (ssize_t)sizeof head &&
	    memcmp(head.magic, HZ4_LIVEPAGE_MAGIC, sizeof head.magic) == 0 &&
	    head.pid_namespace == own_namespace())
		unlink(path);
	close(fd);
}

/* Find the page of the process, and tidy up on the way. */
bool
page_find(int wanted)
{
	DIR *directory = opendir(HZ4_LIVEPAGE_DIRECTORY);
	struct dirent *e;
	bool found = false;
	unsigned uid;
	int pid;

	if (directory == NULL)
		return false;
	while ((e = readdir(directory)) != NULL) {
		char path[PATH_BYTES];
		enum mapped mapped;

		if (!parse_name(e->d_name, &uid, &pid))
			continue;
		snprintf(path, sizeof path, HZ4_LIVEPAGE_DIRECTORY "/%s",
			 e->d_name);
		if (pid != wanted || !process_exists(pid)) {
			remove_if_stale(path, uid, pid);
			continue;
		}
		/* Whoever put it there, it is not this process's page. */
		if (!is_users_file(path, uid) || !process_is_of(pid, uid))
			continue;
		mapped = has_mapped(pid, path);
		if (mapped == MAPPED) {
			memcpy(page.path, path, sizeof path);
			page.uid = uid;
			found = true;
		} else if (mapped == NOT_MAPPED && uid == geteuid()) {
			/* Of a process that had the number before. */
			unlink(path);
		}
	}
	closedir(directory);
	return found;
}

/* --- reading --------------------------------------------------------- */

static bool
fits(uint32_t at, uint64_t count)
{
	return at % 8 == 0 && at <= page.bytes && count <= page.bytes / 8 &&
	       count * 8 <= page.bytes - at;
}

/* The names of the page, checked one by one. */
static bool
read_names(struct figures *f)
{
	size_t n = (size_t)page.copy->values + page.copy->columns, i;
	const char *at = (const char *)page.copy + page.copy->names_at;
	const char *end = (const char *)page.copy + page.bytes;

	f->names = calloc(n, sizeof *f->names);
	if (f->names == NULL)
		return false;
	for (i = 0; i < n; i++) {
		size_t length = strnlen(at, (size_t)(end - at));

		if (length == 0 || length > STAT_NAME_BYTES ||
		    length == (size_t)(end - at) ||
		    strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_") !=
			    length)
			return false;
		f->names[i] = at;
		at += length + 1;
	}
	return true;
}

static bool
check_page(struct figures *f)
{
	const struct hz4_livepage *m = page.copy;
	uint64_t table = (uint64_t)m->columns * m->rows;

	if (memcmp(m->magic, HZ4_LIVEPAGE_MAGIC, sizeof m->magic) != 0 ||
	    m->layout != HZ4_LIVEPAGE_LAYOUT || m->bytes != page.bytes)
		return false;
	if (m->columns == 0 || m->names_at < sizeof *m ||
	    m->names_at > page.bytes || !fits(m->values_at, m->values) ||
	    !fits(m->table_at, table) ||
	    m->table_at != m->values_at + m->values * 8 ||
	    !stat_is_text(m->version, sizeof m->version) ||
	    !stat_is_text(m->flavour, sizeof m->flavour) || !read_names(f))
		return false;
	f->schema = m->schema;
	memcpy(f->version, m->version, sizeof f->version);
	memcpy(f->flavour, m->flavour, sizeof f->flavour);
	f->values = m->values;
	f->columns = m->columns;
	f->rows = m->rows;
	return figures_make(f);
}

/* Somebody has cut the file that is mapped here. */
static void
cut(int signal_number)
{
	static const char text[] = "hz4-stat: the page was cut short\n";

	(void)signal_number;
	(void)!write(STDERR_FILENO, text, sizeof text - 1);
	_exit(BAD_DATA);
}

enum status
page_open(struct figures *f)
{
	struct stat st;
	void *map = MAP_FAILED;
	int fd = open(page.path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1 && errno == ENOENT)
		return complain(NO_PROCESS, "process %d has ended", f->pid);
	if (fd == -1)
		return complain(DENIED, "%s: %s", page.path, strerror(errno));
	/* It may be another file by now than the one that was found. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_uid == page.uid && process_is_of(f->pid, page.uid) &&
	    st.st_size >= (off_t)sizeof *page.map && st.st_size <= MAX_BYTES) {
		page.bytes = (size_t)st.st_size;
		page.inode = st.st_ino;
		map = mmap(NULL, page.bytes, PROT_READ, MAP_SHARED, fd, 0);
	}
	close(fd);
	if (map == MAP_FAILED)
		return complain(BAD_DATA, "%s: not a page of hz4", page.path);
	page.map = map;
	signal(SIGBUS, cut);
	page.copy = malloc(page.bytes);
	if (page.copy != NULL)
		memcpy(page.copy, map, page.bytes);
	if (page.copy == NULL || !check_page(f))
		return complain(BAD_DATA, "%s: damaged, or of another version "
				"of hz4 than " PACKAGE_VERSION, page.path);
	return OK;
}

/* Copy the cells.  The reader's half of the sequence lock. */
static bool
copy_cells(struct figures *f)
{
	/* The page is const here, and atomic loads of it do not write. */
	const struct hz4_livepage *m = page.map;
	const _Atomic uint64_t *from = (const void *)((const char *)m +
						      page.copy->values_at);
	uint64_t before, after;
	size_t i;
	int tries;

	for (tries = 0; tries < TRIES; tries++) {
		/* Pairs with the release of the even number. */
		before = atomic_load_explicit(&m->sequence,
					      memory_order_acquire);
		for (i = 0; i < f->cells; i++)
			f->now[i] = atomic_load_explicit(
				&from[i], memory_order_relaxed);
		f->published = atomic_load_explicit(&m->published,
						    memory_order_relaxed);
		/* Pairs with the fence after the odd number. */
		atomic_thread_fence(memory_order_acquire);
		after = atomic_load_explicit(&m->sequence,
					     memory_order_relaxed);
		if (before == after && before % 2 == 0 && before > 0)
			return true;
		nap(0.001);
	}
	return false;
}

enum status
page_read(struct figures *f)
{
	if (copy_cells(f))
		return OK;
	return complain(BAD_DATA, "process %d stopped while it published",
			f->pid);
}

bool
page_is_closed(void)
{
	return atomic_load_explicit(&page.map->closed, memory_order_relaxed);
}

bool
page_is_replaced(int pid)
{
	struct stat st;

	return stat(page.path, &st) != 0 || st.st_ino != page.inode ||
	       has_mapped(pid, page.path) == NOT_MAPPED;
}

void
page_close(void)
{
	if (page.map != NULL)
		munmap((void *)(uintptr_t)page.map, page.bytes);
	free(page.copy);
	memset(&page, 0, sizeof page);
}
