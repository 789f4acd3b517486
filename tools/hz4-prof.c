/*
 * hz4-prof.c - ask a running process for a heap profile, and show one.  See
 * hz4-prof(1).
 */
#include "config.h"

#include "prof.h"
#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char tool_name[] = "hz4-prof";

#define DEFAULT_PATH "hz4.%p"

enum { LOOKS = 50 }; /* a second, for a profile */

enum form { TEXT, FOLDED, PPROF, SVG };

static struct {
	enum form form;
	bool diff, all;
	size_t top;
	unsigned patience; /* seconds */
	long signal;	 /* 0: what the process was told */
	const char *output;
} want = { .top = 20, .patience = 10 };

static void
usage(FILE *to)
{
	fputs("usage: hz4-prof [OPTION]... PID|FILE\n"
	      "       hz4-prof --diff [OPTION]... BEFORE AFTER\n"
	      "       hz4-prof --help | --version\n", to);
}

static const char help[] =
	"\n"
	"Show a heap profile: that of FILE, or one that process PID is\n"
	"asked for.  It must run on hz4 with a profile and a signal:\n"
	"    HZ4_OPTIONS=profile=524288,profile_signal=12 "
	"hz4-preload COMMAND\n"
	"\n"
	"  -a, --all            what was allocated, not what is live\n"
	"  -d, --diff           what has changed between two files\n"
	"  -f, --folded         a line for each stack: main;f;g BYTES\n"
	"  -p, --pprof          the form of pprof, compressed\n"
	"  -g, --svg            a flame graph for a browser\n"
	"  -n, --top=N          so many stacks [20]\n"
	"  -o, --output=FILE    write there\n"
	"  -s, --signal=N       the signal to send, if PID does "
	"not tell\n"
	"  -t, --timeout=SECONDS  wait so long for PID [10]\n"
	"      --help           this text\n"
	"      --version        the version\n";

static enum status
parse_value(int c)
{
	long n = 0;

	switch (c) {
	case 'n':
		if (!parse_count(optarg, 1000000, &n))
			return complain(USAGE, "%s: not a number of stacks",
					optarg);
		want.top = (size_t)n;
		break;
	case 's':
		if (!parse_count(optarg, 64, &want.signal))
			return complain(USAGE, "%s: not a signal's number",
					optarg);
		break;
	case 't':
		if (!parse_count(optarg, 86400, &n))
			return complain(USAGE, "%s: not a number of seconds "
					"from 1 to 86400", optarg);
		want.patience = (unsigned)n;
		break;
	default:
		want.output = optarg;
		break;
	}
	return OK;
}

/* Exits for --help, --version and whatever is wrong. */
static void
parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "all", no_argument, NULL, 'a' },
		{ "diff", no_argument, NULL, 'd' },
		{ "folded", no_argument, NULL, 'f' },
		{ "pprof", no_argument, NULL, 'p' },
		{ "svg", no_argument, NULL, 'g' },
		{ "top", required_argument, NULL, 'n' },
		{ "output", required_argument, NULL, 'o' },
		{ "signal", required_argument, NULL, 's' },
		{ "timeout", required_argument, NULL, 't' },
		TOOL_OPTIONS
	};
	unsigned forms = 0;
	int c;

	while ((c = getopt_long(argc, argv, "adfpgn:o:s:t:", options,
				NULL)) != -1) {
		if (c == 'a')
			want.all = true;
		else if (c == 'd')
			want.diff = true;
		else if (strchr("fpg", c) != NULL) {
			want.form = c == 'f' ? FOLDED : c == 'p' ? PPROF : SVG;
			forms++;
		} else if (strchr("nost", c) == NULL) {
			tool_option(c, usage, help);
		} else if (parse_value(c) != OK) {
			exit(USAGE);
		}
	}
	if (forms > 1 || (want.diff && want.form > FOLDED))
		exit(complain(USAGE, "one of --folded, --pprof and --svg, the "
			      "last two not with --diff"));
	if (argc - optind != (want.diff ? 2 : 1)) {
		usage(stderr);
		exit(USAGE);
	}
}

/* --- a process ------------------------------------------------------- */

/* What the process was told of its profile. */
struct told {
	bool sure;	 /* by its own word */
	long signal;	 /* 0: none */
	char *file;	 /* as profile_file has it; NULL: it has not */
	char *directory; /* that it began in, with "/"; NULL: not known */
};

/* The value of an option in the environment's HZ4_OPTIONS; the last one. */
static char *
find_option(long pid, const char *name)
{
	size_t n = 0, length = strlen(name);
	char *text = proc_text(pid, "environ", &n), *at, *found = NULL;
	char *end = text + n, *word;

	for (at = text; at != NULL && at < end; at += strlen(at) + 1)
		if (strncmp(at, "HZ4_OPTIONS=", 12) == 0)
			break;
	at = at != NULL && at < end ? at + 12 : NULL;
	while (at != NULL && (word = strsep(&at, ",")) != NULL) {
		if (strncmp(word, name, length) != 0 || word[length] != '=')
			continue;
		free(found);
		found = need(strdup(word + length + 1));
	}
	free(text);
	return found;
}

/*
 * By the library's own word; where its memory must not be read the environment
 * may tell, unless the program writes its title there.  FAILED: it does not
 * run on hz4.
 */
static enum status
find_told(long pid, struct told *to)
{
	struct target t;
	struct hz4_view_options options;
	struct hz4_view_file file;
	char *signal;

	memset(to, 0, sizeof *to);
	memset(&options, 0, sizeof options);
	memset(&file, 0, sizeof file);
	if (target_find(&t, pid) &&
	    target_get(&t, t.view.options, &options, sizeof options) &&
	    target_get(&t, t.view.file, &file, sizeof file)) {
		to->sure = true;
		to->signal = (long)target_number(&t, &options.profile_signal);
		to->file = target_text(&t, &options.profile_file);
		to->directory = target_text(&t, &file.directory);
	} else if (target_is_absent(&t, pid)) {
		return complain(FAILED, "process %ld does not run on hz4",
				pid);
	} else {
		signal = find_option(pid, "profile_signal");
		if (signal != NULL)
			parse_count(signal, 64, &to->signal);
		to->file = find_option(pid, "profile_file");
		free(signal);
	}
	if (to->signal < 0 || to->signal > 64)
		to->signal = 0;
	return OK;
}

/* Without one the signal would end the process. */
static bool
has_handler(long pid, long signal)
{
	char *mask = proc_status(pid, "SigCgt:");
	bool has = mask != NULL &&
		   (strtoull(mask, NULL, 16) >> (signal - 1) & 1) != 0;

	free(mask);
	return has;
}

/*
 * Where the process writes to.  The directories are open, since /proc/PID has
 * them no more once it has ended.
 */
struct where {
	int root, directory;
	char path[PATH_MAX + 512]; /* of the directory, by /proc/PID */
	char *base;		   /* the files' names begin so */
	uid_t uid;		   /* they are this user's */
};

/* As seen from here: in its own directory, root and process namespace. */
static void
find_prefix(long pid, const struct told *told, char *to, size_t size)
{
	const char *from = told->file != NULL && *told->file != '\0' ?
				   told->file : DEFAULT_PATH;
	const char *directory = told->directory != NULL &&
				*told->directory == '/' ?
					told->directory : NULL;
	char *spaces = proc_status(pid, "NSpid:");
	const char *inner = spaces != NULL ? strrchr(spaces, '\t') : NULL;
	size_t n = (size_t)snprintf(to, size, "/proc/%ld/%s%s", pid,
				    *from == '/' || directory != NULL ?
					    "root" : "cwd/",
				    *from != '/' && directory != NULL ?
					    directory : "");

	n = n < size ? n : size - 1;
	while (*from != '\0' && n + 24 < size) {
		if (from[0] == '%' && from[1] == 'p') {
			n += (size_t)sprintf(to + n, "%.20s",
					     inner != NULL ? inner + 1 :
					     spaces != NULL ? spaces : "");
			from += 2;
		} else {
			to[n++] = *from++;
		}
	}
	to[n] = '\0';
	free(spaces);
}

static int
open_directory(int at, const char *path)
{
	return openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static enum status
open_where(long pid, const struct told *told, struct where *w)
{
	struct stat st;

	snprintf(w->path, sizeof w->path, "/proc/%ld", pid);
	if (stat(w->path, &st) != 0)
		return complain(NO_PROCESS, "no process %ld", pid);
	w->uid = st.st_uid;
	snprintf(w->path, sizeof w->path, "/proc/%ld/root", pid);
	w->root = open(w->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	find_prefix(pid, told, w->path, sizeof w->path);
	w->base = strrchr(w->path, '/');
	*w->base++ = '\0';
	w->directory = open_directory(AT_FDCWD, w->path);
	if (w->root == -1 || w->directory == -1)
		return complain(errno == EACCES ? DENIED : FAILED, "%s: %s",
				w->path, strerror(errno));
	return OK;
}

/* The directory's name here, if it has one: that stays when the process ends. */
static void
find_lasting_name(struct where *w)
{
	char link[64], name[PATH_MAX];
	struct stat a, b;
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", w->directory);
	n = readlink(link, name, sizeof name - 1);
	if (n <= 0)
		return;
	name[n] = '\0';
	if (*name == '/' && stat(name, &a) == 0 &&
	    fstat(w->directory, &b) == 0 && a.st_dev == b.st_dev &&
	    a.st_ino == b.st_ino)
		snprintf(w->path, sizeof w->path, "%s", name);
}

struct found {
	char name[NAME_MAX + 1];
	struct stat st;
};

/* The profile of that prefix and user that was written last. */
static bool
find_latest(const struct where *w, struct found *to)
{
	int fd = open_directory(w->directory, ".");
	DIR *d = fd == -1 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct found f;
	bool any = false;
	size_t n = strlen(w->base);
	char *end;

	while (d != NULL && (e = readdir(d)) != NULL) {
		if (strncmp(e->d_name, w->base, n) != 0 ||
		    e->d_name[n] != '.' ||
		    strtoul(e->d_name + n + 1, &end, 10) == 0 ||
		    strcmp(end, ".heap") != 0 ||
		    fstatat(dirfd(d), e->d_name, &f.st,
			    AT_SYMLINK_NOFOLLOW) != 0 ||
		    !S_ISREG(f.st.st_mode) || f.st.st_uid != w->uid)
			continue;
		snprintf(f.name, sizeof f.name, "%s", e->d_name);
		if (any && (f.st.st_mtim.tv_sec < to->st.st_mtim.tv_sec ||
			    (f.st.st_mtim.tv_sec == to->st.st_mtim.tv_sec &&
			     f.st.st_mtim.tv_nsec < to->st.st_mtim.tv_nsec)))
			continue;
		*to = f;
		any = true;
	}
	if (d != NULL)
		closedir(d);
	return any;
}

static bool
is_same(const struct found *a, const struct found *b)
{
	return strcmp(a->name, b->name) == 0 &&
	       a->st.st_ino == b->st.st_ino &&
	       a->st.st_ctim.tv_sec == b->st.st_ctim.tv_sec &&
	       a->st.st_ctim.tv_nsec == b->st.st_ctim.tv_nsec;
}

static enum status
await(long pid, const struct where *w, const struct found *before,
      struct found *now)
{
	unsigned left;
	bool lives = true;

	for (left = want.patience * LOOKS; left > 0 && lives; left--) {
		/* What it has written before its end is seen once more. */
		lives = process_exists(pid);
		if (find_latest(w, now) && !is_same(before, now))
			return OK;
		if (lives)
			nap(1.0 / LOOKS);
	}
	if (!lives)
		return complain(FAILED, "process %ld has ended without a "
				"profile in %s/%s.*.heap", pid, w->path,
				w->base);
	return complain(FAILED, "no profile in %s/%s.*.heap after %u "
			"seconds; is the option profile set?", w->path,
			w->base, want.patience);
}

/* The file that was found: its name, and what is in it. */
static enum status
read_found(struct profile *p, struct where *w, const struct found *found)
{
	static char root[64];
	char *path;
	int fd = openat(w->directory, found->name,
			O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	find_lasting_name(w);
	path = need(malloc(strlen(w->path) + strlen(found->name) + 2));
	sprintf(path, "%s/%s", w->path, found->name);
	if (fd == -1)
		return complain(errno == EACCES ? DENIED : FAILED, "%s: %s",
				path, strerror(errno));
	fprintf(stderr, "hz4-prof: %s\n", path);
	snprintf(root, sizeof root, "/proc/self/fd/%d", w->root);
	return prof_read(p, path, fd, root);
}

/*
 * Which signal asks for a profile.  Any other one means something else to the
 * process, and may end it.
 */
static enum status
choose_signal(long pid, const struct told *told)
{
	if (told->signal == 0 && (told->sure || want.signal == 0))
		return complain(FAILED, "process %ld was not started with "
				"profile_signal in HZ4_OPTIONS%s", pid,
				told->sure ? "" : ", or its memory may not be "
						  "read: --signal=N");
	if (want.signal == 0)
		want.signal = told->signal;
	if (told->sure && want.signal != told->signal)
		return complain(FAILED, "process %ld has profile_signal=%ld, "
				"not %ld", pid, told->signal, want.signal);
	if (!has_handler(pid, want.signal))
		return complain(FAILED, "process %ld has no handler for "
				"signal %ld", pid, want.signal);
	return OK;
}

/* Ask for a profile, and read it. */
static enum status
ask(long pid, struct profile *p)
{
	static struct where where;
	struct told told;
	struct found before, now;
	enum status status;

	memset(&before, 0, sizeof before);
	if (kill((pid_t)pid, 0) != 0)
		return errno == ESRCH ?
			       complain(NO_PROCESS, "no process %ld", pid) :
			       complain(DENIED, "process %ld: %s", pid,
					strerror(errno));
	status = find_told(pid, &told);
	if (status == OK)
		status = choose_signal(pid, &told);
	if (status == OK)
		status = open_where(pid, &told, &where);
	if (status != OK)
		return status;
	free(told.file);
	free(told.directory);
	find_latest(&where, &before);
	if (kill((pid_t)pid, (int)want.signal) != 0)
		return complain(DENIED, "process %ld: %s", pid,
				strerror(errno));
	status = await(pid, &where, &before, &now);
	return status == OK ? read_found(p, &where, &now) : status;
}

/* --- showing --------------------------------------------------------- */

static enum status
show(FILE *to, const struct profile *p, const struct profile *before)
{
	struct lines l;
	char title[300];

	if (want.form == PPROF)
		return show_pprof(to, p) ? OK : FAILED;
	lines_make(&l, p, before, want.all);
	snprintf(title, sizeof title, "%s: %.0f bytes %s",
		 p->path, l.bytes, want.all ? "allocated" : "live");
	if (want.form == SVG)
		show_svg(to, &l, title);
	else if (want.form == FOLDED)
		show_folded(to, &l, before != NULL);
	else
		show_top(to, p, before, &l, want.top, want.all);
	return OK;
}

static enum status
show_all(FILE *to, const char *name, const struct profile *p,
	 const struct profile *before)
{
	enum status status;

	if (want.form == PPROF && isatty(fileno(to)))
		return complain(USAGE, "--pprof is not for a terminal; "
				"--output=FILE");
	status = show(to, p, before);
	if (fflush(to) != 0 || ferror(to) || status != OK)
		return complain(FAILED, "%s: %s", name, strerror(errno));
	return OK;
}

static enum status
show_to(const struct profile *p, const struct profile *before)
{
	enum status status;
	FILE *to;

	if (want.output == NULL)
		return show_all(stdout, "standard output", p, before);
	to = fopen(want.output, "we");
	if (to == NULL)
		return complain(FAILED, "%s: %s", want.output,
				strerror(errno));
	status = show_all(to, want.output, p, before);
	if (fclose(to) != 0 && status == OK)
		return complain(FAILED, "%s: %s", want.output,
				strerror(errno));
	return status;
}

/* A number that is no file is a process. */
static enum status
read_one(struct profile *p, const char *word)
{
	long pid;

	if (!parse_count(word, INT_MAX, &pid) || access(word, F_OK) == 0)
		return prof_read(p, word, -1, "");
	return ask(pid, p);
}

int
main(int argc, char **argv)
{
	struct profile p = { 0 }, before;
	enum status status;

	parse_options(argc, argv);
	if (want.diff) {
		status = prof_read(&before, argv[optind], -1, "");
		if (status == OK)
			status = prof_read(&p, argv[optind + 1], -1, "");
	} else {
		status = read_one(&p, argv[optind]);
	}
	if (status == OK)
		status = show_to(&p, want.diff ? &before : NULL);
	return (int)status;
}
