/*
 * hz4-stat.c - show what a running process publishes with
 * HZ4_OPTIONS=stats_live=1.  See hz4-stat(1).
 *
 * Reads the page of src/livepage.h and trusts nothing in it: whoever may
 * write to /dev/shm can leave a file there.  A page counts as a process's
 * own when that process has it mapped, and the file, the process and the name
 * are one user's.  Its whole text is copied once; what is checked and shown is
 * the copy, and of what is mapped only the values are looked at later.  A
 * file that was cut meanwhile ends in SIGBUS, see cut().
 */
#include "config.h"

#include "livepage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum status {
	OK = 0,
	NO_PAGE = 1,	/* runs, but publishes nothing */
	USAGE = 2,
	NO_PROCESS = 3,
	DENIED = 4,
	BAD_PAGE = 5,	/* damaged, or of another version */
};

enum {
	MAX_BYTES = 16 * 1024 * 1024,
	TRIES = 1000,	/* of a millisecond, for a page that is changing */
	NAME_MAX_BYTES = 64,
	PATH_BYTES = 300,
};

static struct {
	bool json, classes, watch;
	double seconds;
	int pid;
} want = { .seconds = 1 };

/* A page that was looked at closely enough to be read. */
struct page {
	char path[PATH_BYTES];
	const struct hz4_livepage *map; /* for what changes, and nothing else */
	struct hz4_livepage *copy; /* of the whole page, once */
	size_t bytes;
	uid_t uid;	     /* the file's, the process's, that of the name */
	ino_t inode;	     /* the file's */
	size_t cells;	     /* values and table together */
	const char **names;  /* values', then columns' */
	uint64_t *now, *old; /* copies of the cells */
	uint64_t published, published_old;
};

static enum status
complain(enum status status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static enum status
complain(enum status status, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("hz4-stat: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

static void
usage(FILE *to)
{
	fputs("usage: hz4-stat [--json] [--classes] [--watch[=SECONDS]] PID\n"
	      "       hz4-stat --help | --version\n", to);
}

static void
help(void)
{
	usage(stdout);
	fputs("\n"
	      "Show the statistics that process PID publishes.  It must run\n"
	      "on a build of hz4 with statistics, and with stats_live=1:\n"
	      "    HZ4_OPTIONS=stats_live=1 hz4-preload --flavour=stats "
	      "COMMAND\n"
	      "\n"
	      "  -j, --json             JSON instead of \"name value\" lines\n"
	      "  -c, --classes          every size class in use, too\n"
	      "  -w, --watch[=SECONDS]  again and again until PID ends, with\n"
	      "                         the change per second [1]\n"
	      "      --help             this text\n"
	      "      --version          the version\n",
	      stdout);
}

static bool
parse_pid(const char *text)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 ||
	    n <= 0 || n > INT_MAX)
		return false;
	want.pid = (int)n;
	return true;
}

static bool
parse_seconds(const char *text)
{
	char *end;

	want.watch = true;
	if (text == NULL)
		return true;
	want.seconds = strtod(text, &end);
	return *text >= '0' && *text <= '9' && *end == '\0' &&
	       want.seconds >= 0.01 && want.seconds <= 86400;
}

/* Exits for --help, --version and whatever is wrong. */
static void
parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "classes", no_argument, NULL, 'c' },
		{ "watch", optional_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'H' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "jcw::", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			want.json = true;
			break;
		case 'c':
			want.classes = true;
			break;
		case 'w':
			if (!parse_seconds(optarg))
				exit(complain(USAGE, "%s: not a number of "
					      "seconds from 0.01 to 86400",
					      optarg));
			break;
		case 'H':
			help();
			exit(OK);
		case 'V':
			printf("hz4-stat %s\n", PACKAGE_VERSION);
			exit(OK);
		default:
			usage(stderr);
			exit(USAGE);
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		exit(USAGE);
	}
	if (!parse_pid(argv[optind]))
		exit(complain(USAGE, "%s: not a process id", argv[optind]));
}

/* --- which file ------------------------------------------------------ */

/*
 * One that has ended and that nobody has waited for is none any more; where
 * the first thread alone has ended there are others.
 */
static bool
process_exists(int pid)
{
	char path[64], text[512], *field;
	size_t n;
	FILE *f;

	if (kill(pid, 0) != 0 && errno == ESRCH)
		return false;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return true;
	n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = '\0';
	/* "PID (NAME) STATE ...", and the name may hold anything. */
	field = strrchr(text, ')');
	if (field == NULL || field[1] != ' ' ||
	    (field[2] != 'Z' && field[2] != 'X'))
		return true;
	/* The threads are 17 fields on. */
	field += 2;
	for (n = 0; n < 17 && field != NULL; n++) {
		field = strchr(field, ' ');
		field += field != NULL;
	}
	return field != NULL && strtol(field, NULL, 10) > 1;
}

enum mapped { MAPPED, NOT_MAPPED, NOT_TOLD };

/* Whether a list of mappings has a file whose path holds that part. */
static enum mapped
is_listed(const char *maps_path, const char *part)
{
	enum mapped found = NOT_TOLD;
	char *line = NULL;
	size_t size = 0;
	FILE *maps = fopen(maps_path, "re");

	if (maps == NULL)
		return NOT_TOLD;
	while (found != MAPPED && getline(&line, &size, maps) > 0) {
		char *at = strchr(line, '/');

		found = NOT_MAPPED;
		if (at != NULL && strstr(at, part) != NULL &&
		    strstr(at, " (deleted)") == NULL)
			found = MAPPED;
	}
	if (ferror(maps))
		found = NOT_TOLD;
	free(line);
	fclose(maps);
	return found;
}

/* Whether a process has such a file mapped. */
static enum mapped
has_mapped(int pid, const char *part)
{
	enum mapped found;
	struct dirent *e;
	char path[PATH_BYTES];
	DIR *tasks;

	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	found = is_listed(path, part);
	if (found != NOT_TOLD)
		return found;
	/* A first thread that has ended tells nothing, but the others do. */
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	tasks = opendir(path);
	if (tasks == NULL)
		return NOT_TOLD;
	while (found == NOT_TOLD && (e = readdir(tasks)) != NULL) {
		snprintf(path, sizeof path, "/proc/%d/task/%.20s/maps", pid,
			 e->d_name);
		found = is_listed(path, part);
	}
	closedir(tasks);
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

/*
 * Whether the process runs as that user, by the kernel's word: its real and
 * its effective user.  Who has only one of them runs another's program.
 */
static bool
is_users(int pid, uid_t uid)
{
	char path[64], line[200];
	const char *at = NULL;
	unsigned long real = 0, effective = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	while (at == NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, "Uid:", 4) == 0)
			at = line + 4;
	fclose(f);
	if (at != NULL)
		at = parse_number(at + strspn(at, " \t"), UINT_MAX, &real);
	if (at != NULL)
		at = parse_number(at + strspn(at, " \t"), UINT_MAX,
				  &effective);
	return at != NULL && real == uid && effective == uid;
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
static bool
find_page(struct page *p)
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
		if (pid != want.pid || !process_exists(pid)) {
			remove_if_stale(path, uid, pid);
			continue;
		}
		/* Whoever put it there, it is not this process's page. */
		if (!is_users_file(path, uid) || !is_users(pid, uid))
			continue;
		mapped = has_mapped(pid, path);
		if (mapped == MAPPED) {
			memcpy(p->path, path, sizeof path);
			p->uid = uid;
			found = true;
		} else if (mapped == NOT_MAPPED && uid == geteuid()) {
			/* Of a process that had the number before. */
			unlink(path);
		}
	}
	closedir(directory);
	return found;
}

static enum status
explain_no_page(void)
{
	switch (has_mapped(want.pid, "/libhz4.so")) {
	case MAPPED:
		return complain(NO_PAGE,
				"process %d runs on hz4 and publishes nothing;"
				" it takes a build with statistics and "
				"HZ4_OPTIONS=stats_live=1", want.pid);
	case NOT_MAPPED:
		return complain(NO_PAGE, "process %d does not run on hz4",
				want.pid);
	default:
		return complain(DENIED, "process %d: %s", want.pid,
				strerror(EACCES));
	}
}

/* --- reading --------------------------------------------------------- */

static bool
fits(const struct page *p, uint32_t at, uint64_t count)
{
	return at % 8 == 0 && at <= p->bytes && count <= p->bytes / 8 &&
	       count * 8 <= p->bytes - at;
}

/* The names of the page, checked one by one. */
static bool
read_names(struct page *p)
{
	size_t n = (size_t)p->copy->values + p->copy->columns, i;
	const char *at = (const char *)p->copy + p->copy->names_at;
	const char *end = (const char *)p->copy + p->bytes;

	p->names = calloc(n, sizeof *p->names);
	if (p->names == NULL)
		return false;
	for (i = 0; i < n; i++) {
		size_t length = strnlen(at, (size_t)(end - at));

		if (length == 0 || length > NAME_MAX_BYTES ||
		    length == (size_t)(end - at) ||
		    strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_") !=
			    length)
			return false;
		p->names[i] = at;
		at += length + 1;
	}
	return true;
}

static bool
is_text(const char *text, size_t size)
{
	size_t n = strnlen(text, size), i;

	for (i = 0; i < n; i++)
		if (text[i] < ' ' || text[i] > '~' || text[i] == '"' ||
		    text[i] == '\\')
			return false;
	return n < size;
}

static bool
check_page(struct page *p)
{
	const struct hz4_livepage *m = p->copy;
	uint64_t table = (uint64_t)m->columns * m->rows;

	if (memcmp(m->magic, HZ4_LIVEPAGE_MAGIC, sizeof m->magic) != 0 ||
	    m->layout != HZ4_LIVEPAGE_LAYOUT || m->bytes != p->bytes)
		return false;
	if (m->columns == 0 || m->names_at < sizeof *m ||
	    m->names_at > p->bytes || !fits(p, m->values_at, m->values) ||
	    !fits(p, m->table_at, table) ||
	    m->table_at != m->values_at + m->values * 8 ||
	    !is_text(m->version, sizeof m->version) ||
	    !is_text(m->flavour, sizeof m->flavour) || !read_names(p))
		return false;
	p->cells = m->values + (size_t)table;
	p->now = calloc(p->cells, sizeof *p->now);
	p->old = calloc(p->cells, sizeof *p->old);
	return p->now != NULL && p->old != NULL;
}

static enum status
open_page(struct page *p)
{
	struct stat st;
	void *map = MAP_FAILED;
	int fd = open(p->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1 && errno == ENOENT)
		return complain(NO_PROCESS, "process %d has ended", want.pid);
	if (fd == -1)
		return complain(DENIED, "%s: %s", p->path, strerror(errno));
	/* It may be another file by now than the one that was found. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_uid == p->uid && is_users(want.pid, p->uid) &&
	    st.st_size >= (off_t)sizeof *p->map && st.st_size <= MAX_BYTES) {
		p->bytes = (size_t)st.st_size;
		p->inode = st.st_ino;
		map = mmap(NULL, p->bytes, PROT_READ, MAP_SHARED, fd, 0);
	}
	close(fd);
	if (map == MAP_FAILED)
		return complain(BAD_PAGE, "%s: not a page of hz4", p->path);
	p->map = map;
	p->copy = malloc(p->bytes);
	if (p->copy != NULL)
		memcpy(p->copy, map, p->bytes);
	if (p->copy == NULL || !check_page(p))
		return complain(BAD_PAGE, "%s: damaged, or of another version "
				"of hz4 than " PACKAGE_VERSION, p->path);
	return OK;
}

static void
nap(double seconds)
{
	struct timespec t;

	t.tv_sec = (time_t)seconds;
	t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
	nanosleep(&t, NULL);
}

/* Copy the cells.  The reader's half of the sequence lock. */
static bool
copy(struct page *p)
{
	/* The page is const here, and atomic loads of it do not write. */
	const struct hz4_livepage *m = p->map;
	const _Atomic uint64_t *from = (const void *)((const char *)m +
						      p->copy->values_at);
	uint64_t before, after;
	size_t i;
	int tries;

	for (tries = 0; tries < TRIES; tries++) {
		/* Pairs with the release of the even number. */
		before = atomic_load_explicit(&m->sequence,
					      memory_order_acquire);
		for (i = 0; i < p->cells; i++)
			p->now[i] = atomic_load_explicit(
				&from[i], memory_order_relaxed);
		p->published = atomic_load_explicit(&m->published,
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

/* --- showing --------------------------------------------------------- */

static const uint64_t *
row_of(const struct page *p, const uint64_t *cells, size_t row)
{
	return cells + p->copy->values + row * p->copy->columns;
}

/* The table's first column, the size, is not a count. */
static bool
is_unused(const struct page *p, size_t row)
{
	const uint64_t *r = row_of(p, p->now, row);
	size_t i;

	for (i = 1; i < p->copy->columns; i++)
		if (r[i] != 0)
			return false;
	return true;
}

/* Milliseconds since the process published. */
static uint64_t
age(const struct page *p)
{
	struct timespec t;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	return now > p->published ? now - p->published : 0;
}

/* One line; when watching, with the change per second. */
static void
print_line(const struct page *p, const char *name, uint64_t now, uint64_t old)
{
	uint64_t ms = p->published - p->published_old;
	double change = (double)now - (double)old;

	if (!want.watch)
		printf("%s %" PRIu64 "\n", name, now);
	else if (p->published_old == 0 || ms == 0)
		printf("%s %" PRIu64 " -\n", name, now);
	else
		printf("%s %" PRIu64 " %.0f\n", name, now,
		       change * 1000 / (double)ms);
}

static void
print_text(const struct page *p)
{
	const struct hz4_livepage *m = p->copy;
	const uint64_t *now, *old;
	char name[NAME_MAX_BYTES + 40];
	size_t i, row;

	printf("schema %" PRIu32 "\nversion %s\nflavour %s\npid %d\n"
	       "age_ms %" PRIu64 "\n",
	       m->schema, m->version, m->flavour, want.pid, age(p));
	for (i = 0; i < m->values; i++)
		print_line(p, p->names[i], p->now[i], p->old[i]);
	for (row = 0; want.classes && row < m->rows; row++) {
		now = row_of(p, p->now, row);
		old = row_of(p, p->old, row);
		for (i = 1; i < m->columns && !is_unused(p, row); i++) {
			snprintf(name, sizeof name, "class.%" PRIu64 ".%s",
				 now[0], p->names[m->values + i]);
			print_line(p, name, now[i], old[i]);
		}
	}
}

static void
print_json_row(const struct page *p, size_t row, const char *separator)
{
	const struct hz4_livepage *m = p->copy;
	const uint64_t *r = row_of(p, p->now, row);
	size_t i;

	for (i = 0; i < m->columns; i++)
		printf("%s\"%s\": %" PRIu64, i == 0 ? separator : ", ",
		       p->names[m->values + i], r[i]);
	putchar('}');
}

/* One line, so that --watch gives a line a time. */
static void
print_json(const struct page *p)
{
	const struct hz4_livepage *m = p->copy;
	bool first = true;
	size_t i;

	printf("{\"schema\": %" PRIu32 ", \"version\": \"%s\", "
	       "\"flavour\": \"%s\", \"pid\": %d, \"age_ms\": %" PRIu64,
	       m->schema, m->version, m->flavour, want.pid, age(p));
	for (i = 0; i < m->values; i++)
		printf(", \"%s\": %" PRIu64, p->names[i], p->now[i]);
	if (want.classes)
		fputs(", \"classes\": [", stdout);
	for (i = 0; want.classes && i < m->rows; i++) {
		if (is_unused(p, i))
			continue;
		print_json_row(p, i, first ? "{" : ", {");
		first = false;
	}
	puts(want.classes ? "]}" : "}");
}

static enum status
show(struct page *p)
{
	uint64_t *swap;

	if (!copy(p))
		return complain(BAD_PAGE, "process %d stopped while it "
				"published", want.pid);
	if (want.watch && !want.json && isatty(STDOUT_FILENO))
		fputs("\033[H\033[2J", stdout);
	if (want.json)
		print_json(p);
	else
		print_text(p);
	swap = p->old;
	p->old = p->now;
	p->now = swap;
	p->published_old = p->published;
	if (fflush(stdout) != 0)
		return complain(NO_PAGE, "standard output: %s",
				strerror(errno));
	return OK;
}

static void
close_page(struct page *p)
{
	if (p->map != NULL)
		munmap((void *)(uintptr_t)p->map, p->bytes);
	free(p->copy);
	free(p->names);
	free(p->now);
	free(p->old);
	memset(p, 0, sizeof *p);
}

/* The page that the process has now. */
static enum status
look(struct page *p)
{
	if (find_page(p))
		return open_page(p);
	if (!process_exists(want.pid))
		return complain(NO_PROCESS, "no process %d", want.pid);
	return explain_no_page();
}

static bool
has_ended(const struct page *p)
{
	return atomic_load_explicit(&p->map->closed, memory_order_relaxed) ||
	       !process_exists(want.pid);
}

/* A program that the process has executed makes a page of its own. */
static bool
is_replaced(const struct page *p)
{
	struct stat st;

	return stat(p->path, &st) != 0 || st.st_ino != p->inode ||
	       has_mapped(want.pid, p->path) == NOT_MAPPED;
}

static enum status
watch(struct page *p)
{
	enum status status = show(p);

	while (status == OK && !has_ended(p)) {
		nap(want.seconds);
		if (has_ended(p))
			break;
		if (is_replaced(p)) {
			/* It may just be starting. */
			nap(0.1);
			close_page(p);
			if (!process_exists(want.pid))
				break;
			status = look(p);
			if (status != OK)
				break;
		}
		if (!want.json && !isatty(STDOUT_FILENO))
			putchar('\n');
		status = show(p);
	}
	return status;
}

/* Somebody has cut the file that is mapped here. */
static void
cut(int signal_number)
{
	static const char text[] = "hz4-stat: the page was cut short\n";

	(void)signal_number;
	(void)!write(STDERR_FILENO, text, sizeof text - 1);
	_exit(BAD_PAGE);
}

int
main(int argc, char **argv)
{
	static struct page page;
	enum status status;

	parse_options(argc, argv);
	signal(SIGBUS, cut);
	status = look(&page);
	if (status != OK)
		return status;
	status = want.watch ? watch(&page) : show(&page);
	return (int)status;
}
