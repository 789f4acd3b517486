/*
 * Out of memory: NULL and ENOMEM from every entry point, nothing lost, and
 * work goes on once there is memory again.  Limits are set in children, and
 * those say what is wrong without stdio, for that wants memory too.
 */
#include "e2e_check.h"
#include "e2e_seccomp.h"

#include <pthread.h>

enum {
	ROOM = 64 * E2E_MIB,		/* what a child may still map */
	TINY = 16 * E2E_MIB,		/* ulimit -v 16384 */
};

extern char **environ;

static const size_t sizes[] = { 16, 100, 1000, 2048, 5000, 20000, 65536,
	100000, 1048576, 5242880 };

static void
limit(int which, size_t bytes)
{
	struct rlimit r;

	e2e_need(getrlimit(which, &r) == 0, "getrlimit");
	r.rlim_cur = bytes;
	e2e_need(setrlimit(which, &r) == 0, "setrlimit");
}

static void
no_limit(int which)
{
	struct rlimit r;

	e2e_need(getrlimit(which, &r) == 0, "getrlimit");
	r.rlim_cur = r.rlim_max;
	e2e_need(setrlimit(which, &r) == 0, "setrlimit");
}

/* Leave this process ROOM bytes. */
static void
leave_room(int which)
{
	limit(which, ROOM + (which == RLIMIT_AS ? e2e_vsize() :
	    e2e_proc_kib("/proc/self/status", "\nVmData:")));
}

/* --- one thread --------------------------------------------------------- */

/* A list through the blocks themselves: the test needs no memory. */
struct link {
	struct link *next;
};

/* Take blocks of `size` until there are no more; how many. */
static size_t
take_all(struct link **list, size_t size)
{
	size_t count = 0;
	struct link *l;

	*list = NULL;
	for (;;) {
		errno = 0;
		l = count % 8 == 7 ? e2e_calloc(1, size) : e2e_malloc(size);
		if (l == NULL)
			break;
		if (count % 8 == 7)
			e2e_need(e2e_nonzero(l, size) == E2E_SAME,
			    "calloc of %zu is not zero", size);
		e2e_touch(l, size);
		l->next = *list;
		*list = l;
		count++;
		e2e_need(count * size <= 4 * (size_t)ROOM, "no limit?");
	}
	e2e_need(errno == ENOMEM, "errno is %d", errno);
	return count;
}

static void
give_all(struct link *list)
{
	errno = 4711;
	while (list != NULL) {
		struct link *next = list->next;

		e2e_free(list);
		list = next;
	}
	e2e_need(errno == 4711, "free set errno to %d", errno);
}

/* With all memory taken, every entry point says so. */
static void
all_say_no(void)
{
	size_t n = ROOM;
	void *p = &n;

	errno = 0;
	e2e_need(e2e_malloc(n) == NULL && errno == ENOMEM, "malloc");
	errno = 0;
	e2e_need(e2e_calloc(n / 8, 8) == NULL && errno == ENOMEM, "calloc");
	errno = 0;
	e2e_need(e2e_realloc(NULL, n) == NULL && errno == ENOMEM, "realloc");
	errno = 0;
	e2e_need(e2e_memalign(4096, n) == NULL && errno == ENOMEM,
	    "memalign");
	errno = 0;
	e2e_need(e2e_aligned_alloc(1 << 20, n) == NULL && errno == ENOMEM,
	    "aligned_alloc");
	errno = 0;
	e2e_need(e2e_valloc(n) == NULL && errno == ENOMEM, "valloc");
	errno = 0;
	e2e_need(e2e_pvalloc(n) == NULL && errno == ENOMEM, "pvalloc");
	e2e_need(e2e_posix_memalign(&p, 64, n) == ENOMEM && p == &n,
	    "posix_memalign");
}

/*
 * Fill up with one size, free it all, and fill up again with others: with
 * every second one under one limit, and with the rest under the other one.
 * HZ4_TEST_SCALE above 1 has all pairs under both.
 */
static void
fill_and_recover(int which, size_t at)
{
	size_t size = sizes[at];
	size_t turn = at + (which == RLIMIT_DATA);
	struct link *list;
	unsigned char *kept = e2e_malloc(1000);
	size_t first;

	e2e_need(kept != NULL, "no memory at the start");
	e2e_fill(kept, 1000, 1);
	leave_room(which);
	first = take_all(&list, size) * size;
	e2e_need(first >= ROOM / 2, "%zu: only %zu KiB", size, first >> 10);
	all_say_no();
	errno = 0;
	e2e_need(e2e_realloc(kept, ROOM) == NULL && errno == ENOMEM,
	    "realloc of a block");
	e2e_need(e2e_differs(kept, 1000, 1) == E2E_SAME, "block is broken");
	give_all(list);
	for (unsigned i = 0; i < COUNT(sizes); i++) {
		size_t got;

		if (e2e_scale() == 1 && (turn + i) % 2 != 0)
			continue;
		got = take_all(&list, sizes[i]) * sizes[i];
		e2e_need(got >= ROOM / 2, "%zu after %zu: only %zu KiB",
		    sizes[i], size, got >> 10);
		give_all(list);
	}
	no_limit(which);
	e2e_ordinary_calls(20);
	e2e_need(e2e_differs(kept, 1000, 1) == E2E_SAME, "block is broken");
	e2e_free(kept);
}

static void
address_space(size_t at)
{
	fill_and_recover(RLIMIT_AS, at);
}

static void
data_segment(size_t at)
{
	fill_and_recover(RLIMIT_DATA, at);
}

START_TEST(limit_of_address_space)
{
	e2e_in_a_child(address_space, (size_t)_i);
}
END_TEST

START_TEST(limit_of_data)
{
	e2e_in_a_child(data_segment, (size_t)_i);
}
END_TEST

/* Small steps of one block, to the wall and back. */
static void
grow_to_the_wall(size_t unused)
{
	size_t n = 1000;
	unsigned char *p = e2e_malloc(n);

	(void)unused;
	leave_room(RLIMIT_AS);
	for (unsigned round = 0; round < 8; round++) {
		void *q;

		e2e_need(p != NULL, "no memory");
		e2e_fill(p, n, round);
		errno = 0;
		while ((q = e2e_realloc(p, n + n / 8)) != NULL) {
			p = q;
			e2e_need(e2e_differs(p, n, round) == E2E_SAME,
			    "realloc to %zu lost bytes", n + n / 8);
			n += n / 8;
			e2e_fill(p, n, round);
		}
		e2e_need(errno == ENOMEM, "errno is %d", errno);
		e2e_need(n >= ROOM / 4, "only %zu KiB", n >> 10);
		e2e_need(e2e_differs(p, n, round) == E2E_SAME,
		    "the realloc that failed broke the block");
		n = 1000 + round;
		p = e2e_realloc(p, n);
	}
	e2e_free(p);
}

START_TEST(realloc_to_the_wall)
{
	e2e_in_a_child(grow_to_the_wall, 0);
}
END_TEST

/* What is to be smaller stays where it is if there is no memory for a copy. */
static void
shrink_at_the_wall(size_t size)
{
	enum { KEPT = 8 };
	unsigned char *p[KEPT];
	struct link *list, *small;

	leave_room(RLIMIT_AS);
	for (unsigned i = 0; i < KEPT; i++) {
		p[i] = e2e_malloc(size);
		e2e_need(p[i] != NULL, "no memory at the start");
		e2e_fill(p[i], size, i);
	}
	take_all(&list, 65536);
	take_all(&small, size / 10);
	for (unsigned i = 0; i < KEPT; i++) {
		p[i] = e2e_realloc(p[i], size / 10);
		e2e_need(p[i] != NULL, "realloc from %zu to %zu", size,
		    size / 10);
		e2e_need(e2e_differs(p[i], size / 10, i) == E2E_SAME,
		    "realloc to %zu lost bytes", size / 10);
	}
	give_all(list);
	give_all(small);
	for (unsigned i = 0; i < KEPT; i++)
		e2e_free(p[i]);
}

START_TEST(shrinking_needs_no_memory)
{
	e2e_in_a_child(shrink_at_the_wall, sizes[_i]);
}
END_TEST

/* Address space of what is freed serves all calls for something large. */
static void
reuse_of_space(size_t call)
{
	const size_t n = ROOM / 4 * 3;
	struct link *list;
	void *p = NULL;

	leave_room(RLIMIT_AS);
	take_all(&list, 5 * E2E_MIB);
	give_all(list);
	switch (call) {
	case 0:
		p = e2e_malloc(n);
		break;
	case 1:
		p = e2e_calloc(1, n);
		break;
	case 2:
		p = e2e_aligned_alloc(1 << 16, n);
		break;
	case 3:
		e2e_need(e2e_posix_memalign(&p, 4096, n) == 0, "%zu", n);
		break;
	}
	e2e_need(p != NULL, "%zu bytes by call %zu", n, call);
	e2e_free(p);
}

START_TEST(free_space_serves_every_call)
{
	e2e_in_a_child(reuse_of_space, (size_t)_i);
}
END_TEST

/* A mapping that cannot grow within the limit costs no address space. */
static void
grow_beyond_the_limit(size_t unused)
{
	const size_t n = 400 * (size_t)E2E_MIB;
	unsigned char *p = e2e_malloc(n);

	(void)unused;
	e2e_need(p != NULL, "no memory at the start");
	memset(p, 1, 4096);
	/* Enough for the larger one beside, not for its growth as well. */
	limit(RLIMIT_AS, e2e_vsize() + n / 4 * 5 + n / 8);
	for (unsigned i = 0; i < 3; i++) {
		void *q = e2e_realloc(p, n / 4 * 5);

		p = q != NULL ? q : p;
		e2e_need(p[0] == 1 && p[4095] == 1, "lost bytes");
		q = e2e_malloc(n / 2);
		e2e_need(q != NULL, "no address space after realloc %u", i);
		e2e_free(q);
	}
	e2e_free(p);
}

START_TEST(refused_growth_costs_no_space)
{
	e2e_in_a_child(grow_beyond_the_limit, 0);
}
END_TEST

/* --- threads ------------------------------------------------------------ */

static pthread_barrier_t ready;

static void *
fill_in_turns(void *arg)
{
	size_t size = sizes[(uintptr_t)arg % COUNT(sizes)];

	pthread_barrier_wait(&ready);
	for (unsigned i = 0; i < 15; i++) {
		struct link *list;

		take_all(&list, i % 3 == 0 ? size : 300);
		if (i % 5 == 0)
			e2e_sleep(1);
		give_all(list);
	}
	return NULL;
}

static void
threads_at_the_wall(size_t which)
{
	enum { THREADS = 6 };
	pthread_t t[THREADS];
	struct link *list;
	size_t got;

	pthread_barrier_init(&ready, NULL, THREADS + 1);
	for (uintptr_t i = 0; i < THREADS; i++)
		e2e_need(pthread_create(&t[i], NULL, fill_in_turns,
		    (void *)(i * 2)) == 0, "no thread");
	leave_room((int)which);
	pthread_barrier_wait(&ready);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	got = take_all(&list, 1000) * 1000;
	e2e_need(got >= ROOM / 3, "only %zu KiB after threads", got >> 10);
	give_all(list);
}

START_TEST(threads_run_out_together)
{
	e2e_in_a_child(threads_at_the_wall, RLIMIT_AS);
	e2e_in_a_child(threads_at_the_wall, RLIMIT_DATA);
}
END_TEST

/* A thread's first malloc may fail, and its next one must not then. */
static void *
first_malloc_fails(void *arg)
{
	void *p[2];

	(void)arg;
	pthread_barrier_wait(&ready);
	errno = 0;
	p[0] = e2e_malloc(100);
	e2e_need(p[0] != NULL || errno == ENOMEM, "errno is %d", errno);
	pthread_barrier_wait(&ready);
	pthread_barrier_wait(&ready);
	p[1] = e2e_malloc(100);
	e2e_need(p[1] != NULL, "still no memory");
	e2e_free(p[0]);
	e2e_free(p[1]);
	return NULL;
}

static void
threads_without_memory(size_t unused)
{
	enum { THREADS = 30 };
	struct link *list;
	pthread_t t[THREADS];
	pthread_attr_t attr;

	(void)unused;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_barrier_init(&ready, NULL, THREADS + 1);
	for (unsigned i = 0; i < THREADS; i++)
		e2e_need(pthread_create(&t[i], &attr, first_malloc_fails,
		    NULL) == 0, "no thread");
	leave_room(RLIMIT_AS);
	take_all(&list, 100000);
	pthread_barrier_wait(&ready);
	pthread_barrier_wait(&ready);
	give_all(list);
	pthread_barrier_wait(&ready);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

START_TEST(threads_start_without_memory)
{
	e2e_in_a_child(threads_without_memory, 0);
}
END_TEST

/* --- the kernel has no mappings left ------------------------------------ */

/* Use up the mappings that a process may have. */
static void
use_up_mappings(void)
{
	size_t pages = 140000;
	char *p = mmap(NULL, pages * 4096, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	e2e_need(p != MAP_FAILED, "mmap");
	for (size_t i = 0; i < pages; i += 2)
		if (mprotect(p + i * 4096, 4096, PROT_READ) != 0)
			return;
	_exit(0);		/* a kernel with a higher limit */
}

/*
 * Splitting a mapping fails now, and so may munmap and madvise; a new one is
 * refused.  Blocks may be refused, nothing else may happen.
 */
static void
without_mappings(size_t unused)
{
	enum { BLOCKS = 400 };
	static unsigned char *p[BLOCKS];
	static size_t n[BLOCKS];
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 1);

	(void)unused;
	for (unsigned i = 0; i < BLOCKS; i++) {
		n[i] = e2e_log_size(&r, 4, 21);
		p[i] = e2e_malloc(n[i]);
		e2e_need(p[i] != NULL, "no memory");
		e2e_fill(p[i], n[i], i);
	}
	use_up_mappings();
	for (unsigned round = 0; round < 2500; round++) {
		unsigned i = (unsigned)e2e_below(&r, BLOCKS);
		size_t m = e2e_log_size(&r, 4, 22);
		unsigned char *q;

		if (p[i] != NULL)
			e2e_need(e2e_differs(p[i], n[i], i) == E2E_SAME,
			    "block of %zu is broken", n[i]);
		errno = 4711;
		if (round % 3 == 0 && p[i] != NULL) {
			q = e2e_realloc(p[i], m);
			if (q != NULL)
				p[i] = q;
			else
				m = n[i];
		} else {
			e2e_free(p[i]);
			e2e_need(errno == 4711, "free set errno to %d",
			    errno);
			p[i] = round % 3 == 1 ? e2e_malloc(m) :
			    e2e_calloc(1, m);
			q = p[i];
			if (round % 3 == 2 && q != NULL)
				e2e_need(e2e_nonzero(q, m) == E2E_SAME,
				    "calloc of %zu is not zero", m);
		}
		e2e_need(q != NULL || errno == ENOMEM, "errno is %d", errno);
		n[i] = m;
		if (p[i] != NULL)
			e2e_fill(p[i], n[i], i);
		if (round % 500 == 0)
			e2e_trim(0);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
}

START_TEST(no_mappings_left)
{
	e2e_in_a_child(without_mappings, 0);
}
END_TEST

/* --- programs that start with little ------------------------------------ */

/* What this program does as a child of itself; its exit status. */
static int
be_small(void)
{
	struct link *list = NULL;
	size_t bytes = 0;

	for (size_t n = 16; n < 200000; n = n * 5 / 4) {
		struct link *l = e2e_malloc(n);

		if (l == NULL)
			return 3;
		e2e_touch(l, n);
		l->next = list;
		list = l;
		bytes += n;
	}
	give_all(list);
	list = e2e_malloc(2 * E2E_MIB);
	if (list == NULL)
		return 4;
	e2e_free(list);
	return bytes > 500000 ? 0 : 5;
}

/* Run this program again with an argument under a limit; its wait status. */
static int
run_again(const char *arg, const char *setting, size_t address_limit)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *argv[] = { self, NULL, NULL };
	pid_t pid;

	ck_assert_int_gt(n, 0);
	self[n] = '\0';
	pid = fork();
	if (pid == 0) {
		argv[1] = strdup(arg);
		if (setting != NULL)
			putenv(strdup(setting));
		if (address_limit != 0)
			limit(RLIMIT_AS, address_limit);
		execve(self, argv, environ);
		_exit(126);
	}
	return e2e_reap(pid, 20000);
}

START_TEST(starts_under_16_mib)
{
	ck_assert_int_eq(run_again("small", NULL, TINY), 0);
}
END_TEST

/*
 * Whatever the limit, the program is not loaded at all, or it works, or it
 * hears that there is no memory.  In smaller steps where it gets narrow.
 */
START_TEST(starts_or_says_why_under_any_limit)
{
	int worst = 0;

	for (size_t n = 64 * E2E_MIB; n >= 10 * E2E_MIB;
	    n -= n > 2 * (size_t)TINY ? E2E_MIB : 256 * E2E_KIB) {
		int status = run_again("small", NULL, n);

		if (status != 0 && n >= TINY)
			worst = status;
		ck_assert_msg(status != -1 && !WIFSIGNALED(status),
		    "wait status %d under %zu KiB", status, n >> 10);
	}
	ck_assert_int_eq(worst, 0);
}
END_TEST

/* Set by the function below where the first malloc came to nothing. */
static int first_status;

/*
 * The very first malloc of a process meets a limit that leaves nothing.
 * Later there is memory, and the allocator must have taken no harm.
 */
static void
before_everything(int argc, char **argv, char **env)
{
	struct rlimit r;
	struct rlimit nothing;
	void *p;

	(void)argc;
	(void)argv;
	while (*env != NULL && strcmp(*env, "E2E_OOM_FIRST=1") != 0)
		env++;
	if (*env == NULL || getrlimit(RLIMIT_AS, &r) != 0)
		return;
	nothing = r;
	nothing.rlim_cur = 4096;
	setrlimit(RLIMIT_AS, &nothing);
	for (size_t n = 1; n < 100 * (size_t)E2E_MIB; n *= 3) {
		errno = 0;
		p = e2e_malloc(n);
		if (p == NULL && errno != ENOMEM)
			first_status = 6;
		if (p != NULL)
			memset(p, 1, n);
		e2e_free(p);
	}
	setrlimit(RLIMIT_AS, &r);
	p = e2e_malloc(100);
	if (p == NULL)
		first_status = 7;
	e2e_free(p);
}

__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = before_everything;

START_TEST(first_malloc_of_the_process_fails)
{
	ck_assert_int_eq(run_again("small", "E2E_OOM_FIRST=1", 0), 0);
}
END_TEST

/* --- a kernel that refuses to take memory back ------------------------- */

/*
 * Pages that were to be purged and were not still hold what was in them:
 * calloc must not take them for zeros, and nobody else may notice.
 */
static void
work_refused(size_t call)
{
	enum { BLOCKS = 12 };
	void *p[BLOCKS];

	/* As under an old seccomp list. */
	if (!e2e_deny((int)call, EINVAL)) {
		e2e_say("skipped: no seccomp filters here\n");
		return;
	}
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < BLOCKS; i++) {
			/* The last ones are mappings of their own. */
			size_t n = sizes[i % COUNT(sizes)] + i / 10 * 40 *
			    E2E_MIB;

			p[i] = e2e_calloc(1, n);
			e2e_need(p[i] != NULL, "no memory");
			e2e_need(e2e_nonzero(p[i], n) == E2E_SAME,
			    "%zu bytes are not zeros", n);
			memset(p[i], 0xa5, n < E2E_MIB ? n : E2E_MIB);
		}
		for (unsigned i = 0; i < BLOCKS; i++) {
			errno = 1234;
			e2e_free(p[i]);
			e2e_need(errno == 1234, "free changes errno");
		}
		e2e_trim(0);
	}
}

START_TEST(purges_are_refused)
{
	e2e_in_a_child(work_refused, SYS_madvise);
}
END_TEST

START_TEST(unmapping_is_refused)
{
	e2e_in_a_child(work_refused, SYS_munmap);
}
END_TEST

START_TEST(moving_is_refused)
{
	e2e_in_a_child(work_refused, SYS_mremap);
}
END_TEST

/* --- how many mappings it takes ------------------------------------------ */

static unsigned
mappings(void)
{
	char text[4096];
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	unsigned lines = 0;
	ssize_t n;

	e2e_need(fd != -1, "no /proc/self/maps");
	while ((n = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	close(fd);
	return lines;
}

/*
 * 2 GiB of mixed sizes that nobody touches: they cost addresses alone.  A
 * process of 32 bits has room for a quarter of that.
 */
static void
many_blocks(size_t most)
{
	enum { BLOCKS = 1 << 17, MIB = SIZE_MAX > UINT32_MAX ? 2048 : 512 };
	/* Not static: this program also starts within 16 MiB. */
	void **p = mmap(NULL, BLOCKS * sizeof(*p), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 5);
	unsigned before = mappings();
	unsigned count = 0;
	unsigned full;
	unsigned half;
	size_t n;

	e2e_need((void *)p != MAP_FAILED, "mmap");
	for (size_t sum = 0; sum >> 20 < MIB; sum += n) {
		n = e2e_log_size(&r, 4, 20);
		e2e_need(count < BLOCKS, "too many blocks");
		p[count] = e2e_malloc(n);
		e2e_need(p[count] != NULL, "no memory");
		count++;
	}
	full = mappings() - before;
	for (unsigned i = 0; i < count; i++)
		if (e2e_below(&r, 2) == 0) {
			e2e_free(p[i]);
			p[i] = NULL;
		}
	e2e_trim(0);
	half = mappings() - before;
	if (!e2e_is_hz4())
		e2e_say("%u mappings, %u after freeing half\n", full, half);
	else
		e2e_need(full < most && half < most, "%u mappings, %u after "
		    "freeing half", full, half);
	for (unsigned i = 0; i < count; i++)
		e2e_free(p[i]);
}

START_TEST(many_blocks_take_few_mappings)
{
	e2e_in_a_child(many_blocks, 200);
}
END_TEST

/*
 * Small blocks with an alignment of MiB: they share mappings, and what lies
 * between them serves others.
 */
static void
aligned_blocks(size_t most)
{
	enum { BLOCKS = SIZE_MAX > UINT32_MAX ? 10000 : 100,
		ALIGN = 4 * E2E_MIB };
	void **p = mmap(NULL, BLOCKS * sizeof(*p), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 6);
	unsigned before = mappings();
	unsigned after;
	size_t room;

	e2e_need((void *)p != MAP_FAILED, "mmap");
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (e2e_posix_memalign(&p[i], ALIGN, 100) != 0) {
			e2e_say("skipped: no addresses for block %u\n", i);
			return;
		}
		e2e_need((uintptr_t)p[i] % ALIGN == 0, "not aligned");
		e2e_fill(p[i], 100, i);
	}
	after = mappings() - before;
	room = e2e_vsize();
	for (unsigned turn = 0; turn < 2; turn++) {
		for (unsigned i = 0; i < BLOCKS / 2; i++) {
			unsigned k = (unsigned)e2e_below(&r, BLOCKS);

			e2e_need(e2e_differs(p[k], 100, k) == E2E_SAME,
			    "block is broken");
			e2e_free(p[k]);
			/* Something else takes the place in between. */
			p[k] = e2e_malloc(300000);
			e2e_need(p[k] != NULL, "no memory");
			e2e_fill(p[k], 100, k);
		}
	}
	if (e2e_is_hz4()) {
		e2e_need(after < most, "%u mappings", after);
		e2e_need(e2e_vsize() < room + 64 * (size_t)E2E_MIB,
		    "%zu KiB more addresses", (e2e_vsize() - room) >> 10);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
}

START_TEST(aligned_blocks_share_mappings)
{
	e2e_in_a_child(aligned_blocks, 200);
}
END_TEST

/* What cannot be costs nothing: no cache is emptied, no page given back. */
START_TEST(the_impossible_costs_nothing)
{
	static const size_t sizes_of_none[] = { (size_t)PTRDIFF_MAX + 1,
		PTRDIFF_MAX, SIZE_MAX,
#if SIZE_MAX > UINT32_MAX
		PTRDIFF_MAX / 2, (size_t)1 << 60, (size_t)1 << 48, (size_t)1 << 47,
		((size_t)1 << 47) - E2E_MIB,
#endif
	};
	static void *p[2000];
	struct mallinfo2 before;
	struct mallinfo2 after;

	if (!e2e_is_hz4())
		return;
	for (unsigned i = 0; i < COUNT(p); i++)
		p[i] = e2e_malloc(100 + i % 7 * 50);
	for (unsigned i = 0; i < COUNT(p); i++)
		e2e_free(p[i]);
	e2e_free(e2e_calloc(1, 4 * E2E_MIB));
	before = mallinfo2();
	ck_assert_uint_gt(before.fsmblks, 0);
	ck_assert_uint_gt(before.keepcost, 0);
	for (unsigned i = 0; i < COUNT(sizes_of_none); i++) {
		size_t n = sizes_of_none[i];

		ck_assert_ptr_null(e2e_malloc(n));
		ck_assert_ptr_null(e2e_calloc(1, n));
		ck_assert_ptr_null(e2e_realloc(NULL, n));
		ck_assert_ptr_null(e2e_memalign(4096, n));
		ck_assert_ptr_null(e2e_memalign(SIZE_MAX / 2 + 1, 1));
		ck_assert_ptr_null(e2e_memalign((SIZE_MAX >> 16) + 1, n));
	}
	after = mallinfo2();
	ck_assert_uint_eq(after.fsmblks, before.fsmblks);
	ck_assert_uint_eq(after.keepcost, before.keepcost);
	ck_assert_uint_eq(after.arena, before.arena);
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	/*
	 * qemu-user says yes to a limit of memory and sets none, has no
	 * seccomp filters, and ends where it gets no mapping for itself.
	 */
	if (!e2e_emulated()) {
		tcase_add_loop_test(t, limit_of_address_space, 0,
		    COUNT(sizes));
		tcase_add_loop_test(t, limit_of_data, 0, COUNT(sizes));
		tcase_add_test(t, realloc_to_the_wall);
		tcase_add_loop_test(t, shrinking_needs_no_memory, 1,
		    COUNT(sizes) - 1);
		tcase_add_loop_test(t, free_space_serves_every_call, 0, 4);
		tcase_add_test(t, refused_growth_costs_no_space);
		tcase_add_test(t, threads_run_out_together);
		tcase_add_test(t, threads_start_without_memory);
		tcase_add_test(t, no_mappings_left);
		tcase_add_test(t, starts_under_16_mib);
		tcase_add_test(t, starts_or_says_why_under_any_limit);
		tcase_add_test(t, first_malloc_of_the_process_fails);
		tcase_add_test(t, purges_are_refused);
		tcase_add_test(t, unmapping_is_refused);
		tcase_add_test(t, moving_is_refused);
	}
	tcase_add_test(t, many_blocks_take_few_mappings);
	tcase_add_test(t, aligned_blocks_share_mappings);
	tcase_add_test(t, the_impossible_costs_nothing);
}

int
main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "small") == 0)
		return first_status != 0 ? first_status : be_small();
	return e2e_main("oom", 90, add);
}
