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
#include "e2e_check.h"

static char dir[64] = "/tmp/e2e_init.XXXXXX";
static char source[4096];	/* where tests/ is */
static const char *library;	/* the shared libhz4, or NULL */

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
	    (!build("locked_library", "locked_library.so",
	    "-shared -fPIC -Wl,--no-as-needed -lstdc++") &&
	    !build("locked_library", "locked_library.so", "-shared -fPIC")) ||
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

struct launch {
	char **argv;
	const char *preload;
	const char *setting;	/* one more variable, or NULL */
	const char *script;	/* of a shell that runs argv, or NULL */
};

/* One more variable, for the program alone if there is an emulator. */
static unsigned
set(char **argv, bool emulated, const char *name, const char *value)
{
	char *variable;

	if (asprintf(&variable, "%s%s", name, value) == -1)
		abort();
	if (!emulated) {
		putenv(variable);
		return 0;
	}
	argv[0] = strdup("-E");
	argv[1] = variable;
	return 2;
}

/*
 * The kernel cannot run what an emulator can, so that this is called by its
 * name.  It has an ld.so of its own, which is not to preload or audit.
 */
static void
launch(void *arg)
{
	const struct launch *l = arg;
	const char *emulator = getenv("HZ4_TEST_EMULATED");
	char *argv[20];
	unsigned n = 0;

	if (chdir(dir) != 0)
		_exit(125);
	if (l->script != NULL) {
		argv[n++] = strdup("/bin/sh");
		argv[n++] = strdup("-c");
		argv[n++] = strdup(l->script);
		argv[n++] = strdup("sh");
	}
	if (emulator != NULL)
		argv[n++] = strdup(emulator);
	if (l->setting != NULL)
		n += set(argv + n, emulator != NULL, "", l->setting);
	if (l->preload != NULL && *l->preload != '\0')
		n += set(argv + n, emulator != NULL, "LD_PRELOAD=",
		    l->preload);
	for (char **word = l->argv; *word != NULL; word++)
		argv[n++] = *word;
	argv[n] = NULL;
	execvp(argv[0], argv);
	_exit(126);
}

/* Run argv[0] of the temporary directory: "done" and nothing on stderr. */
static void
must_be_well_in(const char *script, char **argv, const char *preload,
    const char *setting)
{
	struct launch l = { argv, preload, setting, script };
	struct e2e_outcome o = e2e_capture(launch, &l);

	ck_assert_msg(o.status == 0 && strstr(o.out, "done\n") != NULL &&
	    o.err[0] == '\0', "%s %s, preloaded %s: wait status %d, \"%s\", "
	    "\"%s\"", setting != NULL ? setting : "", argv[0],
	    preload != NULL ? preload : "nothing", o.status, o.out, o.err);
}

static void
must_be_well(char **argv, const char *preload, const char *setting)
{
	must_be_well_in(NULL, argv, preload, setting);
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

static char init_program[] = "./init_program";
static char tls[] = "./tls_library.so";
static char static_tls[] = "./static_tls_library.so";
static char *init_argv[] = { init_program, tls, static_tls, NULL };

/* The first call of the process is that one. */
static void
begin_with(const char *call, const char *before, const char *behind)
{
	char setting[64];

	snprintf(setting, sizeof(setting), "E2E_FIRST=%s", call);
	must_be_well(init_argv, preload(before, behind), setting);
}

START_TEST(any_call_may_be_the_first)
{
	begin_with(first[_i], "", "");
}
END_TEST

START_TEST(wrapper_in_front)
{
	begin_with(first[_i], "./wrap_library.so", "");
}
END_TEST

START_TEST(wrapper_behind)
{
	begin_with(first[_i], "", "./wrap_library.so");
}
END_TEST

/* Where hz4 calls the kernel itself. */
#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))
enum { CALLS = COUNT(first) };
#else
enum { CALLS = 0 };
#endif

START_TEST(tracer_in_front)
{
	begin_with(first[_i], "./locked_library.so", "");
}
END_TEST

START_TEST(tracer_behind)
{
	begin_with(first[_i], "", "./locked_library.so");
}
END_TEST

START_TEST(audited)
{
	must_be_well(init_argv, preload("", ""),
	    "LD_AUDIT=./audit_library.so");
	if (library != NULL)
		must_be_well(init_argv, preload("", ""),
		    "LD_AUDIT=./audit_hz4.so");
}
END_TEST

START_TEST(opened_and_closed)
{
	char program[] = "./dlopen_program";
	char path[4096];
	char *argv[] = { program, path, NULL };

	if (library == NULL)
		return;
	snprintf(path, sizeof(path), "%s", library);
	must_be_well(argv, NULL, NULL);
}
END_TEST

/* Lazy and immediate binding, and a program without any open file. */
START_TEST(other_circumstances)
{
	char *argv[] = { init_program, NULL };

	must_be_well(argv, preload("", ""), "LD_BIND_NOW=1");
	must_be_well_in("\"$@\" <&- >&- 2>&- && echo done", argv,
	    preload("", ""), NULL);
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	tcase_add_loop_test(t, any_call_may_be_the_first, 0, COUNT(first));
	tcase_add_loop_test(t, wrapper_in_front, 0, COUNT(first));
	tcase_add_loop_test(t, wrapper_behind, 0, COUNT(first));
	tcase_add_loop_test(t, tracer_in_front, 0, CALLS);
	tcase_add_loop_test(t, tracer_behind, 0, CALLS);
	tcase_add_test(t, audited);
	tcase_add_test(t, opened_and_closed);
	tcase_add_test(t, other_circumstances);
}

int
main(void)
{
	int failed;

	find_source();
	library = getenv("hz4_lib");
	if (library != NULL && access(library, R_OK) != 0)
		library = NULL;
	if (mkdtemp(dir) == NULL)
		return 99;
	if (!build_all()) {
		remove_all();
		puts("cannot compile the programs of this test");
		return E2E_SKIP;
	}
	failed = e2e_main("init", 60, add);
	remove_all();
	return failed;
}
