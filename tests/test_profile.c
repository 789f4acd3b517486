/*
 * profile.h, samples.h, backtrace.h: what the samples say of known sizes, that
 * sampled objects are like others, the table's bound, forks, and the text.
 *
 * Seeds are fixed: an estimate that is within three standard errors once
 * always is.
 */
#include "unit_marked.h"

#include "info.h"
#include "profile.h"
#include "samples.h"
#include "walker.h"

#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

enum { RATE = 64 * 1024 };

static struct {
	double live, all; /* what is expected: bytes */
	double live_error, all_error; /* squares of standard errors */
} truth;

static void
start(uint64_t rate)
{
	hz4_thread_start();
	unit_option("profile_seed=1");
	ck_assert(hz4_profile_on(rate));
}

/* Objects of a size, in the truth. */
static void
expect(double n, double size, bool live)
{
	double p = -expm1(-size / RATE);
	double square = n * size * size * (1 - p) / p;

	truth.all += n * size;
	truth.all_error += square;
	if (live) {
		truth.live += n * size;
		truth.live_error += square;
	}
}

/* As a reader of the text scales a stack's sums. */
static double
scaled(uint64_t n, uint64_t bytes, double rate)
{
	return n == 0 ? 0 :
			(double)bytes / -expm1(-(double)bytes / n / rate);
}

static void
check_truth(void)
{
	double live = 0, all = 0;
	struct hz4_site *s;

	for (s = hz4_samples_sites(); s != NULL; s = s->older) {
		live += scaled(s->live, s->live_bytes, RATE);
		all += scaled(s->all, s->all_bytes, RATE);
	}
	ck_assert_msg(fabs(live - truth.live) <= 3 * sqrt(truth.live_error),
		      "%.0f bytes live, not %.0f +- %.0f", live, truth.live,
		      sqrt(truth.live_error));
	ck_assert_msg(fabs(all - truth.all) <= 3 * sqrt(truth.all_error),
		      "%.0f bytes in all, not %.0f +- %.0f", all, truth.all,
		      sqrt(truth.all_error));
}

struct sums {
	uint64_t live, live_bytes, all, all_bytes, stacks;
};

static struct sums
sums(void)
{
	struct sums to = { 0, 0, 0, 0, 0 };
	struct hz4_site *s;

	for (s = hz4_samples_sites(); s != NULL; s = s->older) {
		to.live += s->live;
		to.live_bytes += s->live_bytes;
		to.all += s->all;
		to.all_bytes += s->all_bytes;
		to.stacks += s->all > 0;
	}
	return to;
}

static void *
make(size_t size)
{
	void *p = hz4_heap_malloc(size);

	unit_need(p != NULL, "%zu bytes", size);
	memset(p, 1, hz4_min(size, 4096));
	return p;
}

/* As many stacks as there are depths. */
__attribute__((noinline)) static void *
make_at_depth(unsigned depth, size_t size)
{
	void *p = depth == 0 ? make(size) : make_at_depth(depth - 1, size);

	__asm__ volatile("" : : "r"(p) : "memory");
	return p;
}

/*
 * Half of them stay.  Each size has a stack of its own, since a reader has
 * but the mean size of a stack to scale by.
 */
START_TEST(sizes_are_seen_in_proportion)
{
	static const struct {
		size_t size;
		unsigned n;
	} kinds[] = {
		{ 8, 400000 }, { 100, 100000 }, { 3000, 4000 },
		{ 70000, 100 }, { 1 << 20, 20 },
	};
	unsigned k, i;

	start(RATE);
	for (k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		for (i = 0; i < kinds[k].n; i++) {
			void *p = make_at_depth(k, kinds[k].size);

			if (i % 2 == 0)
				hz4_heap_free(p);
		}
		expect(kinds[k].n / 2, (double)kinds[k].size, true);
		expect(kinds[k].n / 2, (double)kinds[k].size, false);
	}
	check_truth();
}
END_TEST

/* A loop that goes no deeper into its stack than one object. */
START_TEST(what_is_freed_at_once_is_seen)
{
	unsigned i;

	start(RATE);
	for (i = 0; i < 500000; i++)
		hz4_heap_free(hz4_heap_malloc(200));
	expect(500000, 200, false);
	check_truth();
	ck_assert_uint_eq(sums().live, 0);
}
END_TEST

enum { THREADS = 6, EACH = 20000 };

static void *_Atomic handed[THREADS][EACH];

static void *
take_and_free(void *arg)
{
	uintptr_t self = (uintptr_t)arg, other = (self + 1) % THREADS;
	unsigned i;

	for (i = 0; i < EACH; i++)
		handed[self][i] = make(300);
	/* Half of what another one takes. */
	for (i = 0; i < EACH; i += 2) {
		while (handed[other][i] == NULL)
			hz4_os_yield();
		hz4_heap_free(handed[other][i]);
	}
	return NULL;
}

START_TEST(threads_and_frees_by_others)
{
	start(RATE);
	unit_threads(THREADS, take_and_free);
	expect(THREADS * EACH / 2, 300, true);
	expect(THREADS * EACH / 2, 300, false);
	check_truth();
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static void *
take_one(void *unused)
{
	(void)unused;
	return make(300);
}

/* Each thread but the first takes over the cache of the one before. */
START_TEST(first_calls_of_threads_count)
{
	enum { N = 20 };
	struct hz4_site *s;
	uint64_t live = 0;
	unsigned i;

	start(1);
	for (i = 0; i < N; i++)
		unit_thread(take_one, NULL);
	for (s = hz4_samples_sites(); s != NULL; s = s->older)
		live += hz4_peek(&s->live);
	ck_assert_uint_eq(live, N);
}
END_TEST

START_TEST(other_calls)
{
	enum { N = 5000 };
	unsigned i;

	start(RATE);
	for (i = 0; i < N; i++) {
		/* To where there is room, and shrunk where it is. */
		void *p = hz4_heap_realloc(make(500), 2000);

		hz4_heap_realloc(p, 1800);
		hz4_heap_calloc(7, 300);
		ck_assert_uint_eq((uintptr_t)hz4_heap_aligned(512, 700) % 512,
				  0);
	}
	expect(N, 500, false);
	expect(N, 2000, false);
	truth.live += N * 1800.0;
	truth.live_error += N * 1800.0 * 1800 * 36;
	expect(N, 2100, true);
	expect(N, 700, true);
	check_truth();
}
END_TEST

START_TEST(what_shrinks_in_place_counts_less)
{
	enum { N = 20000 };
	unsigned i;
	void *p;

	start(RATE);
	for (i = 0; i < N; i++) {
		p = make(2000);
		ck_assert_ptr_eq(hz4_heap_realloc(p, 1100), p);
	}
	expect(N, 1100, true);
	truth.all = N * 2000.0;
	truth.all_error = N * 2000.0 * RATE;
	check_truth();
}
END_TEST

/* Each start begins a way of its own, not with a sample. */
START_TEST(the_first_way_is_drawn)
{
	unsigned i;

	for (i = 0; i < 200; i++) {
		start(RATE);
		hz4_heap_free(make(16));
		hz4_profile_off();
		ck_assert(i > 0 || sums().all == 0);
	}
	ck_assert_uint_le(sums().all, 2);
}
END_TEST

/* Long after the start: the count of calls has run out, and nobody guards. */
START_TEST(many_calls_without_guards)
{
	struct sigaction before, after;

	sigaction(SIGSEGV, NULL, &before);
	start(RATE);
	make(10);
	hz4_tls_cache->sampler.calls = 1;
	make(10);
	make(10);
	ck_assert_uint_gt(hz4_tls_cache->sampler.calls, 1000);
	sigaction(SIGSEGV, NULL, &after);
	ck_assert(after.sa_handler == before.sa_handler);
}
END_TEST

START_TEST(after_the_stop_malloc_is_as_before)
{
	unsigned cls = hz4_sizeclass(100), i;
	struct hz4_stack *s;

	start(RATE);
	for (i = 0; i < 2 * HZ4_CAREFUL_CALLS; i++)
		hz4_heap_free(make(100));
	s = &hz4_tls_cache->stack[cls];
	ck_assert_ptr_eq(s->low, HZ4_STOP_OPEN);
	hz4_profile_off();
	hz4_heap_free(make(100));
	ck_assert_ptr_eq(s->low, s->base);
}
END_TEST

/* Each is a sample, and has the room that others have (growing_objects). */
START_TEST(samples_that_grow_are_copied_as_seldom)
{
	const size_t most = (size_t)4 << 20;
	unsigned sampled, moves[2];
	size_t size;
	char *p, *q;

	for (sampled = 0; sampled < 2; sampled++) {
		if (sampled)
			start(1);
		moves[sampled] = 0;
		p = hz4_heap_malloc(2000);
		for (size = 2000; size < most; size += size / 50) {
			q = hz4_heap_realloc(p, size);
			moves[sampled] += q != p;
			p = q;
		}
		hz4_heap_free(p);
	}
	ck_assert_uint_eq(sums().live, 0);
	ck_assert_uint_le(moves[1], moves[0]);
}
END_TEST

/* Growth in place, by moved pages, and by copies. */
START_TEST(large_objects_that_grow)
{
	size_t size;
	char *p;

	start(RATE);
	p = hz4_heap_malloc(1 << 20);
	for (size = 2 << 20; size <= (size_t)128 << 20; size *= 2) {
		p = hz4_heap_realloc(p, size);
		ck_assert_ptr_nonnull(p);
	}
	ck_assert_uint_eq(sums().live, 1);
	ck_assert_uint_eq(sums().live_bytes, (size_t)128 << 20);
	hz4_heap_free(p);
	ck_assert_uint_eq(sums().live, 0);
	ck_assert_uint_eq(sums().live_bytes, 0);
	ck_assert_uint_eq(sums().all_bytes, ((size_t)256 << 20) - (1 << 20));
}
END_TEST

__attribute__((noinline)) static void *
one_place(size_t size)
{
	void *p = make(size);

	__asm__ volatile("" : : "r"(p) : "memory");
	return p;
}

__attribute__((noinline)) static void *
another_place(size_t size)
{
	void *p = make(size);

	__asm__ volatile("" : : "r"(p) : "memory");
	return p;
}

/* Counts of the stacks, the largest first; returns how many there are. */
static unsigned
counts(uint64_t *all, unsigned most)
{
	struct hz4_site *s;
	unsigned n = 0, i;

	for (s = hz4_samples_sites(); s != NULL; s = s->older) {
		if (s->all == 0)
			continue;
		ck_assert_uint_lt(n, most);
		for (i = n++; i > 0 && all[i - 1] < s->all; i--)
			all[i] = all[i - 1];
		all[i] = s->all;
	}
	return n;
}

START_TEST(rate_1_takes_all)
{
	uint64_t all[8];
	void *p[300];
	unsigned i;

	start(1);
	for (i = 0; i < 300; i++)
		p[i] = i < 200 ? one_place(i + 1) : another_place(9000 * i);
	ck_assert_uint_eq(counts(all, 8), 2);
	ck_assert_uint_eq(all[0], 200);
	ck_assert_uint_eq(all[1], 100);
	for (i = 0; i < 300; i++)
		hz4_heap_free(p[i]);
	ck_assert_uint_eq(sums().live, 0);
	ck_assert_uint_eq(sums().live_bytes, 0);
	ck_assert_uint_eq(sums().all, 300);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static void
see(uintptr_t object, size_t size, struct hz4_site *site, void *arg)
{
	unsigned *seen = arg;

	unit_need(object != 0 && size > 0 && site != NULL, "%zu", size);
	++*seen;
}

/* Who looks at all of them has read of a page that may be another's since. */
START_TEST(slabs_may_be_gone)
{
	enum { SIZE = 30000, MOST = 200 };
	unsigned n, i, seen = 0;
	uintptr_t first, last;
	void *p[MOST];

	start(1);
	n = hz4_classes[hz4_sizeclass(SIZE)].slots;
	ck_assert_uint_lt(n, MOST);
	for (i = 0; i <= n; i++)
		p[i] = make(SIZE);
	first = (uintptr_t)p[0] & ~(uintptr_t)(HZ4_PAGE - 1);
	last = (uintptr_t)p[n] & ~(uintptr_t)(HZ4_PAGE - 1);
	ck_assert_uint_gt(hz4_samples_each(first, see, &seen), 0);
	ck_assert_uint_eq(seen, n);
	ck_assert_uint_gt(hz4_samples_each(last, see, &seen), 0);
	ck_assert_uint_eq(seen, n + 1);
	while (i > 0)
		hz4_heap_free(p[--i]);
	seen = 0;
	/* One stays for the next ones. */
	ck_assert((hz4_samples_each(first, see, &seen) > 0) !=
		  (hz4_samples_each(last, see, &seen) > 0));
	ck_assert_uint_eq(seen, 0);
}
END_TEST

START_TEST(sampled_objects_are_like_others)
{
	struct hz4_info before, after;
	size_t size, usable, align;
	void *p;

	start(1);
	for (size = 1; size < 600000; size += size / 7 + 1) {
		hz4_profile_off();
		p = hz4_heap_malloc(size);
		usable = hz4_heap_usable(p);
		hz4_heap_free(p);
		ck_assert(hz4_profile_on(1));
		hz4_info_get(&before);
		p = make(size);
		hz4_info_get(&after);
		ck_assert_uint_eq(hz4_heap_usable(p), usable);
		ck_assert_uint_eq((uintptr_t)p % HZ4_ALIGN, 0);
		ck_assert_uint_eq(after.live - before.live, usable);
		ck_assert_uint_eq(after.live_objects - before.live_objects, 1);
		memset(p, 0xee, usable);
		hz4_heap_free(p);
		p = hz4_heap_calloc(1, size);
		ck_assert(unit_all(p, size, 0));
		hz4_heap_free(p);
	}
	for (align = 32; align <= 4 << 20; align *= 2) {
		p = hz4_heap_aligned(align, 100);
		ck_assert_uint_eq((uintptr_t)p % align, 0);
		hz4_heap_free(p);
	}
	ck_assert_uint_eq(sums().live, 0);
	p = hz4_heap_malloc(0);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq(hz4_heap_usable(p), 0);
	ck_assert_uint_eq(sums().live, 0);
}
END_TEST

static void
resize_freed(void *p)
{
	hz4_heap_free(p);
	hz4_heap_realloc(p, 10);
}

START_TEST(misuse_is_told)
{
	void *p;

	start(1);
	/* Another one, so that the slab stays. */
	make(100);
	p = make(100);
	unit_fatal_start(unit_free_twice, p,
			 "hz4: free(): invalid pointer or double free: ptr 0x");
	unit_fatal_start(unit_free_inside, p,
			 "hz4: free(): invalid pointer or double free: ptr 0x");
	unit_fatal_start(resize_freed, p, "hz4: realloc(): invalid pointer or "
					  "double free: ptr 0x");
}
END_TEST

START_TEST(a_full_table_says_so)
{
	unsigned i;

	unit_option("profile_stacks=16");
	start(1);
	for (i = 0; i < 40; i++)
		make_at_depth(i, 100);
	ck_assert_uint_eq(sums().all, 40);
	ck_assert_uint_eq(sums().live_bytes, 4000);
	ck_assert_uint_eq(sums().stacks, 17);
	ck_assert_uint_eq(hz4_samples_full()->live, 24);
	ck_assert_uint_eq(hz4_samples_full()->live_bytes, 2400);
}
END_TEST

START_TEST(start_stop_and_reset)
{
	void *p, *q;

	p = make(1000);
	start(1);
	ck_assert_uint_eq(sums().all, 0);
	q = make(1000);
	hz4_profile_off();
	make(1000);
	ck_assert_uint_eq(sums().all, 1);
	hz4_heap_free(p);
	ck_assert_uint_eq(sums().live, 1);
	hz4_heap_free(q);
	ck_assert_uint_eq(sums().live, 0);
	ck_assert(hz4_profile_on(1));
	p = make(1000);
	ck_assert_uint_eq(sums().all, 2);
	hz4_profile_forget();
	ck_assert_uint_eq(sums().all, 0);
	q = make(2000);
	ck_assert_uint_eq(sums().live_bytes, 2000);
	hz4_heap_free(p);
	ck_assert_uint_eq(sums().live_bytes, 2000);
	/* Another rate begins anew; what is live is not counted off. */
	ck_assert(hz4_profile_on(RATE));
	ck_assert_uint_eq(sums().all, 0);
	hz4_heap_free(q);
	ck_assert_uint_eq(sums().live, 0);
}
END_TEST

static _Atomic bool stop_loop, in_loop;

static void *
loop(void *arg)
{
	(void)arg;
	while (!stop_loop) {
		hz4_heap_free(hz4_heap_malloc(64));
		in_loop = true;
	}
	return NULL;
}

/* A thread whose calls are all served by its stack sees the start. */
START_TEST(running_threads_join_at_the_start)
{
	pthread_t id;
	unsigned i;

	ck_assert_int_eq(pthread_create(&id, NULL, loop, NULL), 0);
	while (!in_loop)
		unit_sleep(1);
	unit_sleep(20);
	start(1);
	for (i = 0; i < 10000 && sums().all == 0; i++)
		unit_sleep(1);
	stop_loop = true;
	pthread_join(id, NULL);
	ck_assert_uint_gt(sums().all, 0);
	hz4_profile_off();
	ck_assert_uint_eq(sums().live, 0);
}
END_TEST

START_TEST(frame_pointers_stay_on_the_stack)
{
	struct hz4_site *s;
	unsigned n = 0;

	unit_option("frame_pointers=1");
	start(1);
	make_at_depth(10, 100);
	for (s = hz4_samples_sites(); s != NULL; s = s->older)
		n += s->all > 0;
	ck_assert_uint_eq(n, 1);
	ck_assert_uint_eq(sums().all, 1);
}
END_TEST

/* --- fork ------------------------------------------------------------ */

static void *shared[64];

static void
sample_much(uint64_t *seed)
{
	unit_use(seed, 16, 300000);
}

static void
child_goes_on(void *arg)
{
	uint64_t seed = 7;
	unsigned i;

	(void)arg;
	for (i = 0; i < 64; i++)
		hz4_heap_free(shared[i]);
	for (i = 0; i < 20; i++)
		sample_much(&seed);
	/* At most what the gone threads held. */
	unit_child_need(sums().live <= 3 * 16 + 3);
}

START_TEST(children_of_a_fork)
{
	unsigned i;

	start(1);
	for (i = 0; i < 64; i++)
		shared[i] = make(i * 50 + 1);
	unit_fork_under(sample_much, 100, child_goes_on, NULL);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* --- the text -------------------------------------------------------- */

static char path[400];
static char text[1 << 20];

static const char *
dump_to(const char *name)
{
	FILE *f;
	size_t n;

	snprintf(path, sizeof path, "test_profile.%d.%s", (int)getpid(),
		 name);
	ck_assert_int_eq(hz4_profile_write(path), 0);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(text, 1, sizeof text - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

START_TEST(text_is_as_readers_want_it)
{
	unsigned long long v[4], to[4] = { 0, 0, 0, 0 }, rate;
	struct stat st;
	char *line, *rest;
	unsigned i, n = 0;
	int at;

	ck_assert_int_eq(hz4_profile_write("nowhere"), EINVAL);
	unit_option("profile_stacks=16");
	start(1);
	for (i = 0; i < 40; i++)
		make_at_depth(i, 100);
	dump_to("text");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	unlink(path);
	ck_assert_int_eq(sscanf(text, "heap profile: %llu: %llu [%llu: %llu] "
				      "@ heap_v2/%llu\n",
				&v[0], &v[1], &v[2], &v[3], &rate),
			 5);
	ck_assert_uint_eq(rate, 1);
	ck_assert_uint_eq(v[2], 40);
	line = strchr(text, '\n') + 1;
	for (; *line != '\n'; line = strchr(line, '\n') + 1) {
		if (*line == '#') {
			ck_assert(strncmp(line, "# dropped, ", 11) == 0);
			rest = strstr(line, "): ") + 3;
			ck_assert(strncmp(rest, "24: 2400 [24: 2400]\n", 20)
				  == 0);
			n += 100;
			continue;
		}
		at = 0;
		ck_assert_int_eq(sscanf(line, "%llu: %llu [%llu: %llu] @%n",
					&v[0], &v[1], &v[2], &v[3], &at),
				 4);
		ck_assert(strncmp(line + at, " 0x", 3) == 0);
		for (i = 0; i < 4; i++)
			to[i] += v[i];
		n++;
	}
	ck_assert_uint_eq(n, 17 + 100);
	ck_assert_uint_eq(to[2], 40);
	ck_assert_uint_eq(to[1], 4000);
	ck_assert(strncmp(line, "\nMAPPED_LIBRARIES:\n", 19) == 0);
	ck_assert_ptr_nonnull(strstr(line, "r-xp"));
	ck_assert_ptr_nonnull(strstr(line, "test_profile"));
}
END_TEST

/* In a child: Check writes files, too. */
static void
write_too_much(void *unused)
{
	struct rlimit limit = { 100, 100 };
	char name[64];

	(void)unused;
	snprintf(name, sizeof name, "test_profile.%d.limit", (int)getpid());
	_exit(setrlimit(RLIMIT_FSIZE, &limit) != 0 ||
	      hz4_profile_write(name) != EFBIG);
}

START_TEST(other_names_are_refused)
{
	struct unit_end end;

	start(1);
	snprintf(path, sizeof path, "test_profile.%d.link", (int)getpid());
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	ck_assert_int_eq(hz4_profile_write(path), EEXIST);
	unlink(path);
	ck_assert_int_eq(hz4_profile_write("/nonexistent/x"), ENOENT);
	ck_assert_int_eq(hz4_profile_write("/dev/null/x"), ENOTDIR);
	memset(path, 'x', 300);
	path[300] = '\0';
	ck_assert_int_eq(hz4_profile_write(path), ENAMETOOLONG);
	unit_child(&end, write_too_much, NULL);
	ck_assert_int_eq(end.status, 0);
	/* And then one that can be had. */
	dump_to("again");
	unlink(path);
}
END_TEST

static unsigned
files(const char *prefix)
{
	unsigned n = 0;
	char name[100];

	for (;; n++) {
		snprintf(name, sizeof name, "%s.%04u.heap", prefix, n + 1);
		if (unlink(name) != 0)
			return n;
	}
}

START_TEST(dumps_at_intervals_and_peaks)
{
	char prefix[64], assign[100];
	unsigned i, n;
	void *p;

	snprintf(prefix, sizeof prefix, "test_profile.%d", (int)getpid());
	snprintf(assign, sizeof assign, "profile_file=%s", prefix);
	unit_option(assign);
	unit_option("profile_interval=1");
	start(1);
	for (i = 0; i < 100; i++)
		hz4_heap_free(make(100000));
	n = files(prefix);
	ck_assert_uint_ge(n, 9);
	ck_assert_uint_le(n, 10);
	unit_option("profile_interval=0");
	unit_option("profile_peak=1");
	/* Up, down, and up again to twice as much. */
	p = make(5000000);
	ck_assert_uint_eq(files(prefix), 0);
	snprintf(prefix, sizeof prefix, "test_profile.%d.%04u.heap",
		 (int)getpid(), n + 1);
	ck_assert_int_eq(unlink(prefix), 0);
	hz4_heap_free(p);
	p = make(5000000);
	make(10000000);
	snprintf(prefix, sizeof prefix, "test_profile.%d.%04u.heap",
		 (int)getpid(), n + 2);
	ck_assert_int_eq(unlink(prefix), 0);
	snprintf(prefix, sizeof prefix, "test_profile.%d.%04u.heap",
		 (int)getpid(), n + 3);
	ck_assert_int_eq(unlink(prefix), -1);
	hz4_heap_free(p);
}
END_TEST

/* Not before the handler has ended: what it interrupts must get on. */
static void
signal_soon(void)
{
	struct itimerval soon = { { 0, 0 }, { 0, 1000 } };

	setitimer(ITIMER_REAL, &soon, NULL);
}

static void
dump_in_handler(int signal)
{
	(void)signal;
	hz4_profile_write(path);
	signal_soon();
}

static void
sample_under_signals(void *arg)
{
	uint64_t seed = 3;
	unsigned i;

	(void)arg;
	signal(SIGALRM, dump_in_handler);
	signal_soon();
	for (i = 0; i < 3000; i++)
		sample_much(&seed);
	/* One that is interrupted goes on; the other one waits for it. */
	for (i = 0; i < 300; i++)
		unit_child_need(hz4_profile_write("test_profile.own") == 0);
	unlink("test_profile.own");
	signal(SIGALRM, SIG_IGN);
	unit_child_need(hz4_check() == 0);
}

/* Whatever it has interrupted: the lock, the table, a dump. */
START_TEST(dumps_in_signal_handlers)
{
	start(1);
	snprintf(path, sizeof path, "test_profile.%d.sig", (int)getpid());
	unit_survives(sample_under_signals, NULL);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

static struct {
	_Atomic unsigned place;
	pthread_t asker;
	sem_t refused, written;
} late;

static void *
ask_late(void *arg)
{
	ck_assert_int_eq(hz4_profile_write(NULL), EBUSY);
	return arg;
}

/* The writer stops where it has begun, the asker where it was refused. */
static void
meet(void)
{
	unsigned place = atomic_fetch_add(&late.place, 1);

	if (place == 0) {
		pthread_create(&late.asker, NULL, ask_late, NULL);
		sem_wait(&late.refused);
	} else if (place == 1) {
		sem_post(&late.refused);
		sem_wait(&late.written);
	}
}

/* The writer has looked whether one more was asked for just before it was. */
START_TEST(a_dump_asked_for_late_is_written)
{
	char prefix[64];

	if (!HZ4_DEBUG_BOX)
		return;
	start(1);
	unit_option("profile_file=test_profile.%p");
	sem_init(&late.refused, 0, 0);
	sem_init(&late.written, 0, 0);
	hz4_poke(&hz4_chaos_hook, meet);
	hz4_poke(&hz4_chaos_one_in, 1);
	ck_assert_int_eq(hz4_profile_write(NULL), 0);
	hz4_poke(&hz4_chaos_one_in, 0);
	sem_post(&late.written);
	pthread_join(late.asker, NULL);
	snprintf(prefix, sizeof prefix, "test_profile.%d", (int)getpid());
	ck_assert_uint_eq(files(prefix), 2);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, sizes_are_seen_in_proportion);
	tcase_add_test(t, what_is_freed_at_once_is_seen);
	tcase_add_test(t, threads_and_frees_by_others);
	tcase_add_test(t, first_calls_of_threads_count);
	tcase_add_test(t, other_calls);
	tcase_add_test(t, what_shrinks_in_place_counts_less);
	tcase_add_test(t, the_first_way_is_drawn);
	tcase_add_test(t, many_calls_without_guards);
	tcase_add_test(t, after_the_stop_malloc_is_as_before);
	tcase_add_test(t, samples_that_grow_are_copied_as_seldom);
	tcase_add_test(t, large_objects_that_grow);
	tcase_add_test(t, rate_1_takes_all);
	tcase_add_test(t, slabs_may_be_gone);
	tcase_add_test(t, sampled_objects_are_like_others);
	tcase_add_test(t, misuse_is_told);
	tcase_add_test(t, a_full_table_says_so);
	tcase_add_test(t, start_stop_and_reset);
	tcase_add_test(t, running_threads_join_at_the_start);
	tcase_add_test(t, frame_pointers_stay_on_the_stack);
	tcase_add_test(t, children_of_a_fork);
	tcase_add_test(t, text_is_as_readers_want_it);
	tcase_add_test(t, other_names_are_refused);
	tcase_add_test(t, dumps_at_intervals_and_peaks);
	tcase_add_test(t, dumps_in_signal_handlers);
	tcase_add_test(t, a_dump_asked_for_late_is_written);
}

int
main(void)
{
	return unit_main("profile", add);
}
