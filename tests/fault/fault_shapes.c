/*
 * fault_shapes.c - objects of all shapes, while system calls fail.
 *
 * usage: fault_shapes [ERROR CALL...]
 *
 * tests/fault/fault runs this with hz4 preloaded and has strace let calls
 * fail.  With arguments it denies itself the named calls with ERROR (EPERM or
 * ENOSYS) by a seccomp filter first, as a sandbox would.
 *
 * Whatever fails, an allocation is either good or NULL with ENOMEM, contents
 * stay, calloc's memory is zero, and free keeps errno.  In the end, when the
 * failure has passed, everything is granted again; but with HZ4_FAULT_LASTS
 * in the environment it does not pass.
 */
#include "e2e_seccomp.h"

#include <pthread.h>

enum {
	MARK = 4711,		/* what errno must still be */
	SMALL = 600,
	LARGE = 24,
	SAMPLE = 4096,		/* of an object that is checked at both ends */
};

#define HUGE ((size_t)40 << 20)

struct object {
	unsigned char *p;
	size_t n;
};

/* Allocations that were refused. */
static unsigned refused;

static bool
granted(void *p, size_t n)
{
	if (p != NULL)
		return true;
	e2e_need(errno == ENOMEM, "%zu bytes: errno %d", n, errno);
	__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
	return false;
}

/* Both ends of an object, with a pattern of its size and place. */
static void
paint(const struct object *o)
{
	size_t n = o->n < SAMPLE ? o->n : SAMPLE;

	if (o->p == NULL)
		return;
	e2e_fill(o->p, n, o->n);
	e2e_fill(o->p + o->n - n, n, o->n);
}

static void
check(const struct object *o)
{
	size_t n = o->n < SAMPLE ? o->n : SAMPLE;

	if (o->p == NULL)
		return;
	e2e_need(e2e_differs(o->p + o->n - n, n, o->n) == E2E_SAME &&
	    (o->n < 2 * n || e2e_differs(o->p, n, o->n) == E2E_SAME),
	    "%p of %zu bytes has changed", (void *)o->p, o->n);
}

static void
make(struct object *o, size_t n)
{
	errno = 0;
	o->n = n;
	o->p = e2e_malloc(n);
	if (granted(o->p, n))
		paint(o);
}

static void
drop(struct object *o)
{
	check(o);
	errno = MARK;
	e2e_free(o->p);
	e2e_need(errno == MARK, "free of %zu bytes sets errno to %d", o->n,
	    errno);
	o->p = NULL;
}

static void
zeroed(size_t n)
{
	struct object o = { NULL, n };

	errno = 0;
	o.p = e2e_calloc(1, n);
	if (!granted(o.p, n))
		return;
	e2e_need(e2e_nonzero(o.p, n) == E2E_SAME,
	    "calloc of %zu bytes is not zero at %zu", n,
	    e2e_nonzero(o.p, n));
	memset(o.p, 0xa5, n);
	paint(&o);
	drop(&o);
}

/* Resize to n bytes; the object stays as it was where that is refused. */
static void
resize(struct object *o, size_t n)
{
	size_t kept = o->n < n ? o->n : n;
	void *p;

	if (o->p == NULL)
		return;
	kept = kept < SAMPLE ? kept : SAMPLE;
	e2e_fill(o->p, kept, o->n);
	errno = 0;
	p = e2e_realloc(o->p, n);
	if (!granted(p, n)) {
		e2e_need(e2e_differs(o->p, kept, o->n) == E2E_SAME,
		    "a refused realloc has changed %p", (void *)o->p);
		paint(o);
		return;
	}
	e2e_need(e2e_differs(p, kept, o->n) == E2E_SAME,
	    "realloc to %zu bytes has lost contents", n);
	o->p = p;
	o->n = n;
	paint(o);
}

static void
small_and_mid(void)
{
	struct object o[SMALL];

	for (size_t i = 0; i < SMALL; i++)
		make(&o[i], i % 16 == 0 ? 0 :
		    i % 3 == 0 ? 1 + i * 97 % 60000 : 1 + i * 3);
	for (size_t i = 0; i < SMALL; i += 2)
		drop(&o[i]);
	for (size_t i = 1; i < SMALL; i += 2)
		resize(&o[i], 1 + o[i].n * (i % 5) / 2);
	for (size_t i = 1; i < SMALL; i += 2)
		drop(&o[i]);
}

static void
large(void)
{
	struct object o[LARGE];

	for (size_t i = 0; i < LARGE; i++)
		make(&o[i], 70000 + i * 90001);
	for (size_t i = 0; i < LARGE; i += 2)
		resize(&o[i], o[i].n * 3 / 2);
	for (size_t i = 0; i < LARGE; i++)
		drop(&o[i]);
	zeroed(300000);
	zeroed(1500000);
	e2e_trim(0);
	zeroed(1500000);
}

static void
huge(void)
{
	struct object o, next;
	void *p = NULL;

	make(&o, HUGE);
	make(&next, HUGE);
	resize(&o, HUGE + HUGE / 2);
	resize(&o, HUGE * 2);
	resize(&next, HUGE - E2E_MIB);
	resize(&o, 100000);
	drop(&next);
	drop(&o);
	zeroed(HUGE);
	errno = MARK;
	if (e2e_posix_memalign(&p, 4 * (size_t)E2E_MIB, 100000) == 0) {
		e2e_need(e2e_aligned(p, 4 * (size_t)E2E_MIB), "%p", p);
		e2e_need(errno == MARK, "errno is %d", errno);
	} else {
		/* As glibc's: it returns the error, and sets errno as well. */
		e2e_need(p == NULL && errno == ENOMEM, "%p, errno is %d", p,
		    errno);
		refused++;
	}
	e2e_free(p);
}

static void *
thread(void *arg)
{
	small_and_mid();
	return arg;
}

static void
threads(void)
{
	pthread_attr_t attr;
	pthread_t id[3];
	int made = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * E2E_KIB);
	while (made < 3 && pthread_create(&id[made], &attr, thread, NULL) == 0)
		made++;
	small_and_mid();
	while (made > 0)
		pthread_join(id[--made], NULL);
	pthread_attr_destroy(&attr);
}

static void
shapes(void)
{
	small_and_mid();
	large();
	huge();
	e2e_trim(0);
	small_and_mid();
}

static void
forks(void)
{
	struct object o;
	int status;
	pid_t pid;

	make(&o, 5000);
	pid = fork();
	if (pid == 0) {
		alarm(60);
		check(&o);
		shapes();
		drop(&o);
		_exit(0);
	}
	if (pid > 0) {
		status = e2e_reap(pid, 60000);
		e2e_need(status == 0, "the child's wait status is %x",
		    (unsigned)status);
	}
	drop(&o);
}

static int
number_of(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {
		{ "madvise", SYS_madvise },   { "mremap", SYS_mremap },
		{ "munmap", SYS_munmap },     { "mprotect", SYS_mprotect },
		{ "sysinfo", SYS_sysinfo },   { "prlimit64", SYS_prlimit64 },
		{ "sched_getaffinity", SYS_sched_getaffinity },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].number;
	e2e_die("no call %s here", name);
}

int
main(int argc, char **argv)
{
	bool lasts = getenv("HZ4_FAULT_LASTS") != NULL;

	if (dlsym(RTLD_DEFAULT, "hz4_version") == NULL) {
		puts("without hz4");
		return 0;
	}
	for (int i = 2; i < argc; i++)
		e2e_need(e2e_deny(number_of(argv[i]),
		    strcmp(argv[1], "EPERM") == 0 ? EPERM : ENOSYS),
		    "no seccomp: %s", strerror(errno));
	(void)!write(1, "with hz4\n", 9);
	shapes();
	threads();
	forks();
	/* The failure may have come to this very point: once more, then. */
	for (int i = 0; i < 3; i++) {
		refused = 0;
		shapes();
		if (refused == 0)
			return 0;
	}
	e2e_need(lasts, "%u allocations are still refused", refused);
	return 0;
}
