/*
 * How much of a thread's stack the calls take: at most STACK bytes, by the
 * first call of a process, of a thread, and whatever their slow paths do.
 * Measured by painting the stack of a coroutine.  And one of 4 KiB works.
 *
 * Compilers that do not optimise use far more: such builds skip this.
 */
#include "e2e_common.h"

#include <pthread.h>
#include <ucontext.h>

enum {
	/* With few registers more lies there. */
	STACK = sizeof(void *) < 8 ? 1152 : 1024,
	ROOM = 64 * E2E_KIB,
	SMALL = 4096,		/* a small coroutine's stack */
	MANY = 60000,
	THREADS = 4,
	PAINT = 0x5a,
};

extern char **environ;

/* A coroutine, and where its calls of the allocator began. */
struct coroutine {
	ucontext_t home, own;
	void (*body)(void);
	char *stack;
	char *from;
	void **kept;
};

static _Thread_local struct coroutine *self;

/* --- calls, from functions that all have the same frame ------------------- */

/* The address of the frame: all below it is the call's, and a bit more. */
#define BEGIN() \
	self->from = (char *)__builtin_frame_address(0)

static __attribute__((noinline)) void *
do_malloc(size_t n)
{
	void *p;

	BEGIN();
	p = e2e_malloc(n);
	__asm__ volatile("" ::: "memory");
	return p;
}

static __attribute__((noinline)) void
do_free(void *p)
{
	BEGIN();
	e2e_free(p);
	__asm__ volatile("" ::: "memory");
}

static __attribute__((noinline)) void *
do_calloc(size_t n)
{
	void *p;

	BEGIN();
	p = e2e_calloc(1, n);
	__asm__ volatile("" ::: "memory");
	return p;
}

static __attribute__((noinline)) void *
do_realloc(void *old, size_t n)
{
	void *p;

	BEGIN();
	p = e2e_realloc(old, n);
	__asm__ volatile("" ::: "memory");
	return p;
}

static __attribute__((noinline)) void *
do_memalign(size_t align, size_t n)
{
	void *p;

	BEGIN();
	p = e2e_memalign(align, n);
	__asm__ volatile("" ::: "memory");
	return p;
}

static __attribute__((noinline)) void *
do_posix_memalign(size_t align, size_t n)
{
	static _Thread_local void *p;

	BEGIN();
	p = NULL;
	if (e2e_posix_memalign(&p, align, n) != 0)
		return NULL;
	return p;
}

static __attribute__((noinline)) void *
do_aligned_alloc(size_t align, size_t n)
{
	void *p;

	BEGIN();
	p = e2e_aligned_alloc(align, n);
	__asm__ volatile("" ::: "memory");
	return p;
}

/* --- what coroutines do ---------------------------------------------------- */

static void
one(void)
{
	do_free(do_malloc(100));
}

static void
ranges(void)
{
	static const size_t sizes[] = { 0, 1, 100, 2048, 5000, 40000, 100000,
		200000, 300000, 3 << 20, 40 << 20 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		do_free(do_malloc(sizes[i]));
		do_free(do_calloc(sizes[i]));
		do_free(do_realloc(do_malloc(sizes[i]), sizes[i] * 2 + 1));
		do_free(do_realloc(do_malloc(sizes[i]), sizes[i] / 3 + 1));
		do_free(do_posix_memalign(64, sizes[i]));
		do_free(do_aligned_alloc(4096, sizes[i]));
		do_free(do_memalign(1 << 17, sizes[i]));
		do_free(do_memalign(4 << 20, sizes[i]));
	}
}

static void
mixed(void)
{
	void **kept = self->kept;
	unsigned i;

	for (i = 0; i < MANY; i++)
		kept[i] = do_malloc(i % 3000 + 1);
	for (i = 0; i < MANY; i++)
		do_free(kept[i * 7919u % MANY]);
	for (i = 0; i < 400; i++)
		kept[i] = do_malloc(i % 20 * 10000 + 3000);
	for (i = 0; i < 400; i++)
		do_free(kept[i]);
}

static void
growth(void)
{
	void *p = do_malloc(10);

	for (size_t n = 10; n < 90 * (size_t)E2E_MIB; n += n / 3 + 1)
		p = do_realloc(p, n);
	for (size_t n = 60 * (size_t)E2E_MIB; n > 10; n /= 2)
		p = do_realloc(p, n);
	do_free(p);
}

/* Until the system has no more (RLIMIT_AS). */
static void
exhaust(void)
{
	void **kept = self->kept;
	unsigned n = 0;

	for (size_t size = 40 << 20; size > 16; size /= 3)
		while (n < MANY && (kept[n] = do_malloc(size)) != NULL)
			n++;
	for (unsigned i = 0; i < 100; i++) {
		do_free(do_calloc(i * 1001));
		do_free(do_posix_memalign(256, i * 1001));
		do_free(do_malloc(i * 10000));
		if (n > 0 && (kept[0] = do_realloc(kept[0], 1000)) == NULL)
			n--;
	}
	while (n > 0)
		do_free(kept[--n]);
}

static void *given[MANY / 10];

static void
free_alone(void)
{
	for (unsigned i = 0; i < MANY / 10; i++)
		do_free(given[i]);
}

/* While a purge of the time before falls due, and classes lie idle. */
static void
for_a_while(void)
{
	uint64_t end = e2e_now() + 1300;

	while (e2e_now() < end)
		mixed();
}

/* --- measuring ------------------------------------------------------------- */

static void
enter(void)
{
	self->body();
}

/* Bytes that calls took on a stack of their own. */
static size_t
measure(struct coroutine *c, void (*body)(void))
{
	size_t i = 0;

	memset(c->stack, PAINT, ROOM);
	c->body = body;
	self = c;
	getcontext(&c->own);
	c->own.uc_stack.ss_sp = c->stack;
	c->own.uc_stack.ss_size = ROOM;
	c->own.uc_link = &c->home;
	makecontext(&c->own, enter, 0);
	swapcontext(&c->home, &c->own);
	while (c->stack + i < c->from && c->stack[i] == PAINT)
		i++;
	return (size_t)(c->from - (c->stack + i));
}

static _Atomic unsigned failures;

static void
judge(const char *what, size_t bytes)
{
	char line[100];
	int n = snprintf(line, sizeof(line), "%-30s %5zu\n", what, bytes);

	(void)!write(1, line, (size_t)n);
	if (e2e_is_hz4() && bytes > STACK)
		failures++;
}

static char first_stack[ROOM] __attribute__((aligned(64)));
static void *first_kept[MANY];
static struct coroutine first = { .stack = first_stack, .kept = first_kept };
static size_t first_bytes;

/* Before anything else allocates. */
static void
before_everything(int argc, char **argv, char **env)
{
	(void)argc;
	(void)argv;
	(void)env;
	first_bytes = measure(&first, one);
}

__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = before_everything;

struct job {
	const char *what;
	void (*body)(void);
};

static void *
in_thread(void *arg)
{
	const struct job *job = arg;
	struct coroutine c = { .from = NULL };
	size_t bytes = ROOM + MANY * sizeof(void *);
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	e2e_need(p != MAP_FAILED, "mmap");
	c.stack = p;
	c.kept = (void **)(void *)(p + ROOM);
	judge(job->what, measure(&c, job->body));
	munmap(p, bytes);
	return NULL;
}

static void
threads(unsigned n, const char *what, void (*body)(void))
{
	struct job job = { what, body };
	pthread_t id[THREADS];

	for (unsigned i = 0; i < n; i++)
		e2e_need(pthread_create(&id[i], NULL, in_thread, &job) == 0,
		    "no thread");
	for (unsigned i = 0; i < n; i++)
		pthread_join(id[i], NULL);
}

/* In a child, whose failures count. */
static void
in_child(void (*what)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		failures = 0;
		alarm(60);
		what();
		_exit(failures > 0);
	}
	status = e2e_reap(pid, 70000);
	if (status == 0)
		return;
	failures++;
	printf("wait status %x\n", (unsigned)status);
}

static void
limited(void)
{
	struct rlimit r = { e2e_vsize() + 200 * (size_t)E2E_MIB,
		RLIM_INFINITY };

	e2e_need(setrlimit(RLIMIT_AS, &r) == 0, "setrlimit");
	judge("without memory", measure(&first, exhaust));
}

static void
forked(void)
{
	judge("in a child", measure(&first, ranges));
	judge("in a child, mixed", measure(&first, mixed));
}

/* All that is written below 4 KiB is a fault. */
static void
small_coroutine(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = page > SMALL ? page : SMALL;
	char *p = mmap(NULL, page + size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static void (*const bodies[])(void) = { ranges, mixed, growth };

	e2e_need(p != MAP_FAILED && mprotect(p, page, PROT_NONE) == 0,
	    "no memory");
	for (unsigned i = 0; i < 3; i++) {
		first.body = bodies[i];
		getcontext(&first.own);
		first.own.uc_stack.ss_sp = p + page + size - SMALL;
		first.own.uc_stack.ss_size = SMALL;
		first.own.uc_link = &first.home;
		makecontext(&first.own, enter, 0);
		swapcontext(&first.home, &first.own);
	}
}

static void
everything(void)
{
	judge("first call of the process", first_bytes);
	judge("every size", measure(&first, ranges));
	judge("many mixed", measure(&first, mixed));
	judge("growth", measure(&first, growth));
	threads(1, "first call of a thread", one);
	for (unsigned i = 0; i < MANY / 10; i++)
		given[i] = e2e_malloc(i % 3000 + 1);
	threads(1, "a thread that only frees", free_alone);
	threads(1, "every size, in a thread", ranges);
	threads(THREADS, "threads together", mixed);
	in_child(forked);
	/* qemu-user sets no limits, and does not start itself anew. */
	if (!e2e_emulated())
		in_child(limited);
	if (e2e_is_hz4())
		in_child(small_coroutine);
}

/* Once more, with options, which the first call reads. */
static void
again(const char *options)
{
	char *argv[] = { (char *)"e2e_stack", (char *)"again", NULL };
	pid_t pid;
	int status;

	printf("HZ4_OPTIONS=%s\n", options);
	fflush(stdout);
	setenv("HZ4_OPTIONS", options, 1);
	pid = fork();
	if (pid == 0) {
		execve("/proc/self/exe", argv, environ);
		_exit(126);
	}
	status = e2e_reap(pid, 300000);
	if (status != 0)
		failures++;
}

int
main(int argc, char **argv)
{
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || \
    defined(__SANITIZE_THREAD__)
	puts("not built for speed");
	return E2E_SKIP;
#endif
	(void)argv;
	everything();
	if (argc == 1 && e2e_is_hz4() && !e2e_emulated()) {
		again("purge_delay=0,thread_cache=65536,huge_threshold=0");
		again("thread_cache=0,shards=2,purge_lazy=1,zero_trap=0");
		judge("for a while", measure(&first, for_a_while));
	}
	return failures > 0;
}
