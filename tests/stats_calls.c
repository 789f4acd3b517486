/*
 * stats_calls.c - the counters against sequences of calls that are known.
 *
 * Between two looks a sequence makes so many mallocs and frees; the sums
 * malloc_calls and free_calls must grow by just that, whichever path each
 * call took, in this thread or in threads that live or have ended.  A look
 * makes no call of malloc itself.  Without --enable-stats the counters must
 * be absent, and the figures true all the same.
 */
#include "e2e_common.h"

#include <hz4/hz4.h>
#include <pthread.h>

enum { TEXT = 512 * 1024, THREADS = 6, CALLS = 3000 };

static char before[TEXT], after[TEXT];
static bool counted;

static void
look(char *text)
{
	size_t n = hz4_stats_text(text, TEXT);

	e2e_need(n > 0 && n < TEXT, "text of %zu bytes", n);
}

/* A value by name; UINT64_MAX when there is none. */
static uint64_t
value(const char *text, const char *name)
{
	size_t length = strlen(name);
	const char *line = text;

	while (line != NULL) {
		if (strncmp(line, name, length) == 0 && line[length] == ' ')
			return strtoull(line + length, NULL, 10);
		line = strchr(line, '\n');
		line += line != NULL;
	}
	return UINT64_MAX;
}

static uint64_t
grown(const char *name)
{
	return value(after, name) - value(before, name);
}

static void
start(void)
{
	look(before);
}

/* So many calls were made since start(), so many of them large, ... */
static void
expect(const char *what, uint64_t mallocs, uint64_t frees)
{
	look(after);
	if (!counted)
		return;
	e2e_need(grown("malloc_calls") == mallocs, "%s: %llu mallocs, not %llu",
		 what, (unsigned long long)grown("malloc_calls"),
		 (unsigned long long)mallocs);
	e2e_need(grown("free_calls") == frees, "%s: %llu frees, not %llu",
		 what, (unsigned long long)grown("free_calls"),
		 (unsigned long long)frees);
}

static void
expect_row(const char *what, const char *name, uint64_t n)
{
	e2e_need(!counted || grown(name) == n, "%s: %s grew by %llu, not %llu",
		 what, name, (unsigned long long)grown(name),
		 (unsigned long long)n);
}

static void
check_plain(void)
{
	static void *p[CALLS];
	static const size_t sizes[] = { 0, 1, 16, 17, 256, 2048, 2049, 32768,
					65536, 65537, 262144 };
	size_t k, i;

	for (k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		size_t n = sizes[k] > 65536 ? 100 : CALLS;

		start();
		for (i = 0; i < n; i++)
			p[i] = e2e_malloc(sizes[k]);
		for (i = 0; i < n; i++)
			e2e_free(p[i]);
		expect("plain", n, n);
		expect_row("plain", "malloc_large", 0);
		expect_row("plain", "malloc_failed", 0);
	}
}

static void
check_large(void)
{
	static const size_t sizes[] = { 262145, 1 << 20, 40 << 20 };
	size_t k;

	for (k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		start();
		e2e_free(e2e_malloc(sizes[k]));
		e2e_free(e2e_calloc(1, sizes[k]));
		e2e_free(e2e_memalign(1 << 20, sizes[k]));
		expect("large", 3, 3);
		expect_row("large", "malloc_large", 3);
		expect_row("large", "free_large", 3);
	}
}

static void
check_others(void)
{
	void *p;
	int saved;

	start();
	e2e_free(e2e_calloc(10, 10));
	e2e_free(e2e_calloc(10, 10000));
	e2e_free(e2e_memalign(64, 100));
	e2e_free(e2e_aligned_alloc(4096, 10000));
	e2e_free(e2e_valloc(1));
	e2e_free(e2e_pvalloc(1));
	e2e_need(e2e_posix_memalign(&p, 256, 1000) == 0, "posix_memalign");
	e2e_free(p);
	expect("calloc and aligned", 7, 7);

	start();
	e2e_free(NULL);
	expect("null", 0, 1);
	expect_row("null", "free_null", 1);

	saved = errno;
	start();
	e2e_need(e2e_malloc(SIZE_MAX) == NULL, "malloc");
	e2e_need(e2e_calloc(SIZE_MAX, 2) == NULL, "calloc");
	e2e_need(e2e_memalign(64, SIZE_MAX) == NULL, "memalign");
	e2e_need(e2e_malloc((size_t)PTRDIFF_MAX) == NULL, "malloc");
	expect("refused", 4, 0);
	expect_row("refused", "malloc_failed", 4);
	errno = saved;
}

static void
check_realloc(void)
{
	void *p;

	start();
	p = e2e_realloc(NULL, 100);	/* malloc */
	p = e2e_realloc(p, 90);		/* in place */
	p = e2e_realloc(p, 1000);	/* moves */
	p = e2e_realloc(p, 100000);	/* moves */
	p = e2e_realloc(p, 300000);	/* moves */
	p = e2e_realloc(p, 290000);	/* in place */
	p = e2e_realloc(p, 10);		/* moves */
	e2e_need(e2e_realloc(p, 0) == NULL, "realloc"); /* free */
	expect("realloc", 5, 5);
	expect_row("realloc", "realloc_in_place", 2);
}

/* So that hits, refills, lock paths, flushes and bare calls all occur. */
static void *
churn(void *arg)
{
	void *p[64] = { 0 };
	struct e2e_rng r = e2e_rng_start(e2e_seed(), (uintptr_t)arg);
	size_t i, k;

	for (i = 0; i < CALLS; i++) {
		k = e2e_below(&r, 64);
		if (p[k] != NULL)
			e2e_free(p[k]);
		p[k] = e2e_malloc(e2e_log_size(&r, 4, 19));
	}
	for (i = 0; i < 64; i++)
		e2e_free(p[i]);
	return NULL;
}

static pthread_barrier_t done, go;

static void *
churn_and_stay(void *arg)
{
	churn(arg);
	pthread_barrier_wait(&done);
	pthread_barrier_wait(&go);
	return NULL;
}

/* Each thread makes CALLS mallocs, and frees of NULL besides. */
static void
check_threads(void)
{
	pthread_t t[THREADS], stay[THREADS];
	uintptr_t i;

	pthread_barrier_init(&done, NULL, THREADS + 1);
	pthread_barrier_init(&go, NULL, THREADS + 1);
	/* libc allocates for threads: count what comes with them as well. */
	for (i = 0; i < THREADS; i++)
		e2e_need(pthread_create(&t[i], NULL, churn, (void *)i) == 0,
			 "pthread_create");
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	start();
	for (i = 0; i < THREADS; i++)
		e2e_need(pthread_create(&stay[i], NULL, churn_and_stay,
					(void *)i) == 0, "pthread_create");
	pthread_barrier_wait(&done);
	look(after);
	if (counted) {
		uint64_t n = grown("malloc_calls");

		/* A thread's control block may be among them. */
		e2e_need(n >= THREADS * CALLS && n <= THREADS * CALLS + 64,
			 "%llu mallocs of live threads",
			 (unsigned long long)n);
	}
	pthread_barrier_wait(&go);
	for (i = 0; i < THREADS; i++)
		pthread_join(stay[i], NULL);
	/* What ended threads counted is still there. */
	memcpy(before, after, TEXT);
	look(after);
	e2e_need(!counted || grown("malloc_calls") < 64,
		 "sums after the threads' ends");
}

/* live_objects == mallocs - frees, whoever made them. */
static void
check_figures(void)
{
	enum { OBJECTS = 500, SIZE = 6000 };
	static void *p[OBJECTS];
	uint64_t live, size = hz4_good_size(SIZE);
	size_t i;

	start();
	for (i = 0; i < OBJECTS; i++)
		p[i] = e2e_malloc(SIZE);
	look(after);
	live = grown("live");
	e2e_need(grown("live_objects") == OBJECTS, "live_objects");
	e2e_need(live == OBJECTS * size, "live: %llu, not %llu",
		 (unsigned long long)live,
		 (unsigned long long)(OBJECTS * size));
	for (i = 0; i < OBJECTS; i++)
		e2e_free(p[i]);
	look(after);
	e2e_need(grown("live_objects") == 0 && grown("live") == 0,
		 "figures after free");
	if (!counted)
		return;
	e2e_need(value(after, "malloc_calls") - value(after, "malloc_failed") +
			 value(after, "free_null") ==
		 value(after, "free_calls") + value(after, "live_objects"),
		 "mallocs, frees and live objects");
}

static const char *const served[] = {
	"malloc_l0_hit", "malloc_alloc_run_hit", "malloc_lock_path",
	"malloc_large", "malloc_failed",
};
static const char *const taken[] = {
	"free_l0_hit", "free_alloc_run_hit", "free_uncached", "free_large",
	"free_null",
};

static void
check_sums(void)
{
	uint64_t mallocs = 0, frees = 0;
	size_t i;

	look(after);
	for (i = 0; i < 5; i++) {
		mallocs += value(after, served[i]);
		frees += value(after, taken[i]);
	}
	e2e_need(mallocs == value(after, "malloc_calls"), "malloc_calls");
	e2e_need(frees == value(after, "free_calls"), "free_calls");
	e2e_need(value(after, "malloc_lock_path") ==
			 value(after, "malloc_transfer_hit") +
				 value(after, "malloc_span_create"),
		 "ways of the lock path");
	e2e_need(value(after, "malloc_alloc_run_refill_objs") >=
			 value(after, "malloc_alloc_run_refill_calls"),
		 "refills");
	e2e_need(value(after, "malloc_l0_hit") > 0 ||
			 strncmp(hz4_flavour(), "dual", 4) != 0,
		 "no hit in L0");
}

/* The classes' rows add up to the whole. */
static void
check_classes(void)
{
	uint64_t sum = 0, live = 0;
	const char *line = after;
	char name[80];
	unsigned long long n;
	unsigned size;

	e2e_need(hz4_option_set("stats_classes", "1") == 0, "stats_classes");
	look(after);
	e2e_need(hz4_option_set("stats_classes", "0") == 0, "stats_classes");
	e2e_need(hz4_option_set("stats_file=a", "b") == EINVAL &&
			 hz4_option_set("stats_file", "a,b") == EINVAL &&
			 hz4_option_set("os_page", "3") == EINVAL,
		 "an option that HZ4_OPTIONS could not set");
	while ((line = strstr(line, "\nclass.")) != NULL) {
		line++;
		e2e_need(sscanf(line, "class.%u.%79s %llu", &size, name, &n) ==
				 3, "class line");
		if (strcmp(name, "malloc_calls") == 0)
			sum += n;
		else if (strcmp(name, "live_objects") == 0)
			live += n;
	}
	e2e_need(live == value(after, "live_objects"), "live of classes");
	e2e_need(!counted || sum == value(after, "malloc_calls"),
		 "calls of classes");
}

int
main(void)
{
	if (!e2e_is_hz4())
		return E2E_SKIP;
	look(before);
	counted = strstr(hz4_flavour(), "stats") != NULL;
	e2e_need(counted == (value(before, "malloc_calls") != UINT64_MAX),
		 "counters in flavour %s", hz4_flavour());
	check_plain();
	check_large();
	check_others();
	check_realloc();
	check_threads();
	check_figures();
	if (counted)
		check_sums();
	check_classes();
	return 0;
}
