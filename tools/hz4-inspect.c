/*
 * hz4-inspect.c - the part of hz4-preload(1) that looks into the command and
 * then becomes it.
 *
 * usage: hz4-inspect run|check|strict LIBRARY PRELOAD COMMAND [ARGUMENT...]
 *
 * LIBRARY is the file to look at, PRELOAD what LD_PRELOAD shall hold, the
 * library's entry first.  The three differ in what becomes of a problem: a
 * warning, a line of the report, the end.  Nothing that the command brings
 * runs for an answer, see ask_loader().
 */
#include "config.h"

#include "elffile.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SONAME "libhz4.so.0"

enum {
	FAILED = 125,
	NOT_EXECUTABLE = 126,
	NOT_FOUND = 127,
	SCRIPTS_MAX = 5, /* that run one another */
	LISTING_MAX = 1 << 20,
};

static enum { RUN, CHECK, STRICT } mode;
static const char *library, *preload;
static unsigned problems;
static char *note; /* what was not looked at, the last of them */

/*
 * Allocators and sanitizers by the names of their libraries.  A program that
 * carries one either keeps using it or mixes two heaps.
 */
static const char *const sanitizers[] = { "libasan.so*", "libtsan.so*",
	"liblsan.so*", "libhwasan.so*", "libclang_rt.*san*", NULL };
static const char *const allocators[] = { "libjemalloc*", "libtcmalloc*",
	"libmimalloc*", "libsnmalloc*", "librpmalloc*", "libtbbmalloc*",
	"libhardened_malloc*", "libscudo*", "libhoard*", "libisoalloc*",
	"libdmalloc*", "libefence*", "libduma*", "libumem*", "libmesh.so*",
	"libc_malloc_debug*", "libgwp_asan*", "libnedmalloc*", NULL };

/* Loaders by name: as commands they run another program. */
static const char *const loaders[] = { "ld-linux*.so*", "ld64.so*", "ld.so*",
	NULL };

/* Where the ABI of a processor has the loader. */
static const struct {
	unsigned bits, machine;
	const char *path;
} abi[] = {
	{ 64, EM_X86_64, "/lib64/ld-linux-x86-64.so.2" },
	{ 32, EM_386, "/lib/ld-linux.so.2" },
	{ 32, EM_X86_64, "/libx32/ld-linux-x32.so.2" },
	{ 64, EM_AARCH64, "/lib/ld-linux-aarch64.so.1" },
	{ 32, EM_ARM, "/lib/ld-linux-armhf.so.3" },
	{ 64, EM_RISCV, "/lib/ld-linux-riscv64-lp64d.so.1" },
	{ 64, EM_PPC64, "/lib64/ld64.so.2" },
	{ 64, EM_S390, "/lib/ld64.so.1" },
};

static void say(const char *prefix, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));
static void fail(int status, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
static void object(const char *format, ...)
	__attribute__((format(printf, 1, 2)));
static void set_note(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

static void
say(const char *prefix, const char *format, va_list args)
{
	fprintf(stderr, "hz4-preload: %s", prefix);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

static void
fail(int status, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	va_start(args, format);
	say("", format, args);
	va_end(args);
	exit(status);
}

/*
 * What the command cannot do with hz4: a line of the report, a warning, or
 * with --strict the end.
 */
static void
object(const char *format, ...)
{
	va_list args;

	problems++;
	va_start(args, format);
	if (mode == CHECK) {
		printf("problem:  ");
		vprintf(format, args);
		putchar('\n');
	} else {
		say(mode == STRICT ? "refused: " : "warning: ", format, args);
	}
	va_end(args);
	if (mode == STRICT)
		exit(FAILED);
}

static void
set_note(const char *format, ...)
{
	va_list args;

	free(note);
	va_start(args, format);
	if (vasprintf(&note, format, args) < 0)
		note = NULL;
	va_end(args);
}

static bool
any_matches(const char *const *patterns, const char *name)
{
	for (; *patterns != NULL; patterns++)
		if (fnmatch(*patterns, name, 0) == 0)
			return true;
	return false;
}

static const char *
base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

static bool
is_file(const char *path)
{
	struct stat info;

	return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static bool
can_run(const char *path)
{
	return is_file(path) && access(path, X_OK) == 0;
}

/* Read what `path` is; false if it may not be read. */
static bool
look(struct elffile *f, const char *path, bool symbols)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	memset(f, 0, sizeof *f);
	if (fd < 0)
		return false;
	elffile_read(f, fd, symbols);
	close(fd);
	return true;
}

/* Why `path` cannot be run, ENOENT where there is nothing; 0 if it can. */
static int
obstacle(const char *path)
{
	struct stat info;

	if (stat(path, &info) != 0)
		return errno == ENOTDIR ? ENOENT : errno;
	if (S_ISDIR(info.st_mode))
		return EISDIR;
	return can_run(path) ? 0 : EACCES;
}

/*
 * Look for program `name` as execvp() does.  Returns 0 with its path, which
 * the caller frees, or ENOENT, or what else is in the way.
 */
static int
find_command(const char *name, char **path)
{
	const char *dir = getenv("PATH"), *end;
	int error, result = ENOENT;

	*path = NULL;
	if (*name == '\0')
		return ENOENT;
	if (strchr(name, '/') != NULL) {
		result = obstacle(name);
		*path = result == 0 ? strdup(name) : NULL;
		return result == 0 && *path == NULL ? ENOMEM : result;
	}
	if (dir == NULL)
		dir = "/bin:/usr/bin";
	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		if (asprintf(path, "%.*s/%s", end == dir ? 1 : (int)(end - dir),
			end == dir ? "." : dir, name) < 0)
			return ENOMEM;
		error = obstacle(*path);
		if (error == 0)
			return 0;
		/* A directory of that name is passed by. */
		if (error != ENOENT && error != EISDIR)
			result = error;
		free(*path);
		*path = NULL;
		if (*end == '\0')
			return result;
	}
}

/* -------------------------------------------------------------------------
 * A program
 * ------------------------------------------------------------------------- */

/* Object if running it gains privileges, for then ld.so drops the preload. */
static void
check_privileges(const char *path)
{
	struct stat info;

	if (stat(path, &info) != 0)
		return;
	if ((info.st_mode & S_ISUID) != 0 && info.st_uid != getuid())
		object("'%s' is setuid: ld.so ignores the preload", path);
	else if ((info.st_mode & S_ISGID) != 0 && info.st_gid != getgid())
		object("'%s' is setgid: ld.so ignores the preload", path);
	if (getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0)
		object(
		    "'%s' has capabilities: ld.so ignores the preload", path);
}

/* Object if library `name` in program `path` is an allocator or a sanitizer. */
static void
check_needed(const char *path, const char *name)
{
	if (any_matches(sanitizers, name))
		object("'%s' is built with a sanitizer (%s)", path, name);
	else if (any_matches(allocators, name))
		object("'%s' uses an allocator of its own (%s)", path, name);
}

static void
check_symbols(const char *path, const struct elffile *f)
{
	size_t i;

	if (f->symbols_unread)
		set_note("symbols not looked at");
	if ((f->defines & 1) != 0)
		object("'%s' has a malloc of its own", path);
	for (i = 1; i < elffile_symbol_count; i++)
		if ((f->defines >> i & 1) != 0)
			object("'%s' is built with a sanitizer (%s)", path,
			    elffile_symbols[i]);
}

static bool
same_kind(const struct elffile *f)
{
	struct elffile own;
	bool same;

	if (!look(&own, library, false))
		return false;
	same = own.bits == f->bits && own.machine == f->machine;
	elffile_free(&own);
	return same;
}

/*
 * Whether a program's loader is that of this system: where the ABI of its
 * processor has it, or what /bin/sh names.  All others are the words of a file
 * that nobody may trust yet.
 */
static bool
has_own_loader(const struct elffile *f)
{
	struct elffile sh;
	bool own;
	size_t i;

	for (i = 0; i < sizeof abi / sizeof *abi; i++)
		if (abi[i].bits == f->bits && abi[i].machine == f->machine &&
		    strcmp(abi[i].path, f->interp) == 0)
			return true;
	if (!look(&sh, "/bin/sh", false))
		return false;
	own = sh.interp != NULL && strcmp(sh.interp, f->interp) == 0;
	elffile_free(&sh);
	return own;
}

/* All that comes from `fd`; NULL if that is too much. */
static char *
read_all(int fd)
{
	char *text = malloc(LISTING_MAX + 1);
	size_t n = 0;
	ssize_t got = 1;

	while (text != NULL && n < LISTING_MAX && got != 0) {
		got = read(fd, text + n, LISTING_MAX - n);
		if (got > 0)
			n += (size_t)got;
		else if (got < 0 && errno != EINTR)
			break;
	}
	if (text != NULL && got == 0) {
		text[n] = '\0';
		return text;
	}
	free(text);
	return NULL;
}

/* What `loader` would load for program `path`, NULL if it fails. */
static char *
list_loaded(const char *loader, const char *path)
{
	char *text;
	int ends[2], status = FAILED;
	pid_t pid;

	fflush(stdout);
	if (pipe2(ends, O_CLOEXEC) != 0)
		return NULL;
	pid = fork();
	if (pid == 0) {
		if (dup2(ends[1], STDOUT_FILENO) >= 0 &&
		    dup2(ends[1], STDERR_FILENO) >= 0 &&
		    setenv("LD_PRELOAD", preload, 1) == 0)
			execl(loader, loader, "--list", path, (char *)NULL);
		_exit(NOT_FOUND);
	}
	close(ends[1]);
	text = pid > 0 ? read_all(ends[0]) : NULL;
	close(ends[0]);
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	if (text != NULL && status == 0)
		return text;
	free(text);
	return NULL;
}

/* The path of hz4's library in the loader's list, NULL if it is not there. */
static char *
listed_library(const char *listing)
{
	const char *found = strstr(listing, SONAME " ("), *start = found;

	if (found == NULL)
		return NULL;
	while (start > listing && start[-1] != '\n' && start[-1] != '\t' &&
	    start[-1] != ' ')
		start--;
	return strndup(start, (size_t)(found - start) + strlen(SONAME));
}

/* One line of the list, of the library that it is about. */
static void
check_listed(const char *path, const struct elffile *f, char *line)
{
	char *end = strstr(line, " (");
	const char *name;
	size_t i;

	if (end != NULL)
		*end = '\0';
	end = strstr(line, " =>");
	if (end != NULL)
		*end = '\0';
	end = strrchr(line, '\t');
	name = base_name(end != NULL ? end + 1 : line);
	for (i = 0; i < f->needed_count; i++)
		if (strcmp(f->needed[i], name) == 0)
			return;
	check_needed(path, name);
}

/*
 * Let the loader list what the program would load: that finds allocators
 * below other libraries too, and errors of the preload itself.  Nothing that
 * the program brings may run meanwhile: no loader of its own, and no library
 * that audits, which ld.so runs even where it only lists.
 */
static void
ask_loader(const char *path, const struct elffile *f, bool same)
{
	char *listing, *hz4, *line, *rest = NULL;

	if (f->audits) {
		set_note("it has ld.so run auditing libraries: not listed");
		return;
	}
	if (!has_own_loader(f)) {
		set_note("not listed: %s is not the loader of this system",
		    f->interp);
		return;
	}
	if (access(f->interp, X_OK) != 0)
		return;
	listing = list_loaded(f->interp, path);
	if (listing == NULL)
		return;
	hz4 = listed_library(listing);
	if (hz4 == NULL)
		object("the loader %s does not load " SONAME, f->interp);
	else if (mode == CHECK && !same)
		/* Another one than `library` where the program has 32 bits. */
		printf("loads:    %s\n", hz4);
	free(hz4);
	for (line = strtok_r(listing, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest))
		check_listed(path, f, line);
	free(listing);
}

static void
check_program(const char *path, const struct elffile *f)
{
	bool same;
	size_t i;

	check_privileges(path);
	for (i = 0; i < f->needed_count; i++)
		check_needed(path, f->needed[i]);
	check_symbols(path, f);
	if (f->interp == NULL) {
		if (any_matches(loaders, base_name(path)))
			set_note("what the loader runs is not looked into");
		else if (f->library)
			object("'%s' is a shared library, not a program", path);
		else
			object("'%s' is statically linked: nothing can be "
			       "preloaded",
			    path);
		return;
	}
	if (fnmatch("*/ld-musl*", f->interp, 0) == 0)
		object("'%s' runs on musl, hz4 is built for glibc", path);
	same = same_kind(f);
	/* 32-bit beside 64-bit: with a token ld.so finds the right one. */
	if (!same && memchr(preload, '$', strcspn(preload, ":")) == NULL)
		object("'%s' is for another kind of processor than the library",
		    path);
	if (mode != RUN)
		ask_loader(path, f, same);
}

/* -------------------------------------------------------------------------
 * A script, and the command
 * ------------------------------------------------------------------------- */

/* What the words after #! run, env looked through; the caller frees it. */
static char *
script_target(char *line)
{
	const char *blank = " \t";
	char *rest = NULL, *first = strtok_r(line, blank, &rest), *word, *path;

	if (first == NULL)
		return NULL;
	if (fnmatch("*/env", first, 0) == 0) {
		do
			word = strtok_r(NULL, blank, &rest);
		while (word != NULL &&
		    (*word == '-' || strchr(word, '=') != NULL));
		if (word != NULL && find_command(word, &path) == 0)
			return path;
	}
	return strdup(first);
}

/*
 * Look at one file of the chain.  Returns what runs it, which the caller
 * frees, or NULL at the end.
 */
static char *
check_file(const char *command, const char *path)
{
	struct elffile f;
	char *next = NULL;

	if (!look(&f, path, mode != RUN)) {
		check_privileges(path);
		set_note("not readable, so not looked into");
		return NULL;
	}
	switch (f.kind) {
	case ELFFILE_PROGRAM:
		check_program(path, &f);
		break;
	case ELFFILE_BROKEN:
		object("'%s' is not a whole ELF program", path);
		break;
	case ELFFILE_TEXT:
		/* As execvp() does where the kernel cannot execute it. */
		next = strdup("/bin/sh");
		break;
	case ELFFILE_DATA:
		/* The system may know who runs it (binfmt_misc). */
		set_note("not looked into: neither program nor script");
		break;
	case ELFFILE_SCRIPT:
		next = script_target(f.line);
		if (next == NULL || can_run(next))
			break;
		object("'%s' is to be run by '%s', which cannot be", command,
		    next);
		free(next);
		next = NULL;
		break;
	}
	elffile_free(&f);
	return next;
}

/* Look at what is to be executed; a script leads to its interpreter. */
static void
check_command(const char *command)
{
	char *path = strdup(command), *next;
	unsigned level;

	for (level = 0; path != NULL && level < SCRIPTS_MAX; level++) {
		if (mode == CHECK)
			printf("%s%s\n",
			    level == 0 ? "command:  " : "run by:   ", path);
		next = check_file(command, path);
		free(path);
		path = next;
	}
	if (path != NULL)
		object("'%s' is run by scripts, and these by more", command);
	free(path);
}

static int
report(void)
{
	if (note != NULL)
		printf("note:     %s\n", note);
	printf("verdict:  %s\n",
	    problems == 0 ? "runs on hz4"
			  : "does not run on hz4, or not on hz4 alone");
	return fflush(stdout) == 0 ? problems != 0 : FAILED;
}

int
main(int argc, char **argv)
{
	char *path;
	int error;

	if (argc < 5)
		fail(FAILED, "hz4-inspect is a part of it, see hz4-preload(1)");
	mode = strcmp(argv[1], "check") == 0 ? CHECK
	    : strcmp(argv[1], "strict") == 0 ? STRICT
					     : RUN;
	library = argv[2];
	preload = argv[3];
	argv += 4;
	error = find_command(argv[0], &path);
	if (error == ENOENT)
		fail(NOT_FOUND, "'%s': not found", argv[0]);
	if (error != 0)
		fail(error == ENOMEM ? FAILED : NOT_EXECUTABLE,
		    "'%s': cannot be executed: %s", argv[0], strerror(error));
	check_command(path);
	free(path);
	if (mode == CHECK)
		return report();
	if (setenv("LD_PRELOAD", preload, 1) == 0)
		execvp(argv[0], argv);
	fail(NOT_EXECUTABLE, "'%s': cannot be executed: %s", argv[0],
	    strerror(errno));
}
