/*
 * The first and the last moments of a process, and company in it: programs
 * and libraries that allocate before constructors and after main, other
 * preloaded libraries that wrap what an allocator calls, an auditor of the
 * dynamic linker, hz4 opened and closed at run time.
 *
 * The helpers in tests/programs are compiled here, with $CC or cc.  Where
 * there is no compiler, or no shared libhz4 (hz4_lib says where it is), that
 * part is skipped.
 */
#include "e2e_common.h"

#include <check.h>

static char dir[64] = "/tmp/e2e_init.XXXXXX";
static char source[4096];	/* where tests/ is */
static const char *library;	/* the shared libhz4, or NULL */
static bool built;

extern char **environ;

/* --- helpers ------------------------------------------------------------ */

static void
find_source(void)
{
	const char *top = getenv("top_srcdir");
	char *slash;

	if (top != NULL) {
		snprintf(source, sizeof(source), "%s/tests", top);
		return;
	}
	snprintf(source, sizeof(source), "%s", __FILE__);
	slash = strrchr(source, '/');
	if (slash == NULL)
		strcpy(source, ".");
	else
		*slash = '\0';
}

/* Compile tests/programs/NAME.c to OUT in the temporary directory. */
static bool
build(const char *name, const char *out, const char *options)
{
	char command[12000];
	const char *cc = getenv("CC");

	if (cc == NULL || *cc == '\0')
		cc = "cc";
	snprintf(command, sizeof(command),
	    "%s -std=gnu11 -O1 -I'%s' -o '%s/%s' '%s/programs/%s.c' %s "
	    "-pthread >'%s/log' 2>&1 || { cat '%s/log' >&2; exit 1; }",
	    cc, source, dir, out, source, name, options, dir, dir);
	return system(command) == 0;
}

static bool
build_all(void)
{
	char linked[600];
	char with_hz4[9000];

	snprintf(linked, sizeof(linked),
	    "-L'%s' -linit_library -Wl,-rpath,'%s'", dir, dir);
	if (!build("init_library", "libinit_library.so", "-shared -fPIC") ||
	    !build("init_program", "init_program", linked) ||
	    !build("tls_library", "tls_library.so", "-shared -fPIC") ||
	    !build("tls_library", "static_tls_library.so",
	    "-shared -fPIC -DTLS_STATIC") ||
	    !build("wrap_library", "wrap_library.so", "-shared -fPIC") ||
	    !build("audit_library", "audit_library.so", "-shared -fPIC") ||
	    !build("dlopen_program", "dlopen_program", ""))
		return false;
	if (library == NULL)
		return true;
	snprintf(with_hz4, sizeof(with_hz4),
	    "-shared -fPIC '%s' -Wl,-rpath,\"$(dirname '%s')\"", library,
	    library);
	return build("audit_library", "audit_hz4.so", with_hz4);
}

static void
remove_all(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	(void)!system(command);
}

struct outcome {
	int status;
	char out[256];
	char err[1024];
};

static void
read_back(int fd, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	e2e_slurp(path, text, size);
	close(fd);
}

/*
 * Run argv[0] of the temporary directory with `preload` and one more
 * variable; everything it prints is kept.
 */
static struct outcome
run(char **argv, const char *preload, const char *setting)
{
	struct outcome o = { .status = 0 };
	int out = memfd_create("out", 0);
	int err = memfd_create("err", 0);
	pid_t pid = fork();

	if (pid == 0) {
		dup2(out, 1);
		dup2(err, 2);
		alarm(30);
		if (chdir(dir) != 0)
			_exit(125);
		if (setting != NULL)
			putenv(strdup(setting));
		if (preload != NULL && *preload != '\0')
			setenv("LD_PRELOAD", preload, 1);
		execve(argv[0], argv, environ);
		_exit(126);
	}
	o.status = e2e_reap(pid, 40000);
	read_back(out, o.out, sizeof(o.out));
	read_back(err, o.err, sizeof(o.err));
	return o;
}

static void
must_be_well(char **argv, const char *preload, const char *setting)
{
	struct outcome o = run(argv, preload, setting);

	ck_assert_msg(o.status == 0 && strstr(o.out, "done\n") != NULL &&
	    o.err[0] == '\0', "%s %s, preloaded %s: wait status %d, \"%s\", "
	    "\"%s\"", setting != NULL ? setting : "", argv[0],
	    preload != NULL ? preload : "nothing", o.status, o.out, o.err);
}

/* LD_PRELOAD of hz4, if there is one, with something before or behind it. */
static const char *
preload(const char *before, const char *behind)
{
	static char list[8192];
	const char *now = getenv("LD_PRELOAD");
	const char *hz4 = library != NULL ? library : now != NULL ? now : "";

	snprintf(list, sizeof(list), "%s %s %s", before, hz4, behind);
	return list;
}

/* --- tests -------------------------------------------------------------- */

static const char *const first[] = {
	"malloc", "free", "usable", "trim", "mallinfo", "mallopt", "calloc",
	"realloc", "memalign", "large", "too_large", "fork",
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

START_TEST(any_call_may_be_the_first)
{
	char program[] = "./init_program";
	char tls[] = "./tls_library.so";
	char static_tls[] = "./static_tls_library.so";
	char *argv[] = { program, tls, static_tls, NULL };
	char setting[64];

	if (!built)
		return;
	snprintf(setting, sizeof(setting), "E2E_FIRST=%s", first[_i]);
	must_be_well(argv, preload("", ""), setting);
}
END_TEST

START_TEST(wrapper_in_front)
{
	char program[] = "./init_program";
	char tls[] = "./tls_library.so";
	char static_tls[] = "./static_tls_library.so";
	char *argv[] = { program, tls, static_tls, NULL };
	char setting[64];

	if (!built)
		return;
	snprintf(setting, sizeof(setting), "E2E_FIRST=%s", first[_i]);
	must_be_well(argv, preload("./wrap_library.so", ""), setting);
}
END_TEST

START_TEST(wrapper_behind)
{
	char program[] = "./init_program";
	char tls[] = "./tls_library.so";
	char static_tls[] = "./static_tls_library.so";
	char *argv[] = { program, tls, static_tls, NULL };
	char setting[64];

	if (!built)
		return;
	snprintf(setting, sizeof(setting), "E2E_FIRST=%s", first[_i]);
	must_be_well(argv, preload("", "./wrap_library.so"), setting);
}
END_TEST

START_TEST(audited)
{
	char program[] = "./init_program";
	char tls[] = "./tls_library.so";
	char static_tls[] = "./static_tls_library.so";
	char *argv[] = { program, tls, static_tls, NULL };

	if (!built)
		return;
	must_be_well(argv, preload("", ""), "LD_AUDIT=./audit_library.so");
	if (library != NULL)
		must_be_well(argv, preload("", ""),
		    "LD_AUDIT=./audit_hz4.so");
}
END_TEST

START_TEST(opened_and_closed)
{
	char program[] = "./dlopen_program";
	char path[4096];
	char *argv[] = { program, path, NULL };

	if (!built || library == NULL)
		return;
	snprintf(path, sizeof(path), "%s", library);
	must_be_well(argv, NULL, NULL);
}
END_TEST

/* Lazy and immediate binding, and a program without any open file. */
START_TEST(other_circumstances)
{
	char program[] = "./init_program";
	char *argv[] = { program, NULL };
	char shell[] = "/bin/sh";
	char option[] = "-c";
	char script[] = "./init_program <&- >&- 2>&- && echo done";
	char *closed[] = { shell, option, script, NULL };

	if (!built)
		return;
	must_be_well(argv, preload("", ""), "LD_BIND_NOW=1");
	must_be_well(closed, preload("", ""), NULL);
}
END_TEST

/* ------------------------------------------------------------------------ */

static Suite *
init_suite(void)
{
	Suite *s = suite_create("init");
	TCase *t = tcase_create("init");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, any_call_may_be_the_first, 0, COUNT(first));
	tcase_add_loop_test(t, wrapper_in_front, 0, COUNT(first));
	tcase_add_loop_test(t, wrapper_behind, 0, COUNT(first));
	tcase_add_test(t, audited);
	tcase_add_test(t, opened_and_closed);
	tcase_add_test(t, other_circumstances);
	suite_add_tcase(s, t);
	return s;
}

int
main(void)
{
	SRunner *sr;
	int failed;

	find_source();
	library = getenv("hz4_lib");
	if (library != NULL && access(library, R_OK) != 0)
		library = NULL;
	if (mkdtemp(dir) == NULL)
		return 99;
	built = build_all();
	if (!built) {
		remove_all();
		puts("cannot compile the programs of this test");
		return E2E_SKIP;
	}
	sr = srunner_create(init_suite());
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	remove_all();
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
