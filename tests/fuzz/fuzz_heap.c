/*
 * fuzz_heap.c - a byte stream as calls of the allocator, against a shadow
 * heap that knows what is live, how large, how aligned and filled with what.
 *
 * Linked with libhz4core and with malloc.c, whose names are given the prefix
 * api_ (tests/fuzz/fuzz), so that fuzzer and sanitizers keep libc's own.
 * Built with the debug checks: the heap walker runs now and then, and after
 * each input, when everything has been freed, no object may be left.
 *
 * An input may run a part of itself in another thread, which is waited for,
 * or in the child of a fork, and may have hz4's system calls fail; nothing
 * in it depends on timing.  But the heap outlives an input, so a failure may
 * need those before.  They are kept:
 *
 *   HZ4_FUZZ_RECORD=FILE  write every input of this process to FILE
 *   HZ4_FUZZ_REPLAY=FILE  run all inputs in FILE, and end
 */
#include "fuzz.h"

#include "heap.h"
#include "info.h"
#include "option.h"
#include "os.h"
#include "walker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void *api_malloc(size_t size);
void *api_calloc(size_t n, size_t size);
void *api_realloc(void *p, size_t size);
void api_free(void *p);
void api_cfree(void *p);
void api_free_sized(void *p, size_t size);
void api_free_aligned_sized(void *p, size_t align, size_t size);
int api_posix_memalign(void **result, size_t align, size_t size);
void *api_aligned_alloc(size_t align, size_t size);
void *api_memalign(size_t align, size_t size);
void *api_valloc(size_t size);
void *api_pvalloc(size_t size);
size_t api_malloc_usable_size(void *p);
int api_malloc_trim(size_t pad);
int api_mallopt(int parameter, int value);
struct mallinfo2 api_mallinfo2(void);

int LLVMFuzzerInitialize(int *argc, char ***argv);

enum {
	OBJECTS = 400,
	MARK = 4711,		/* what errno must still be */
	CHECKS = 1,		/* walks of the heap in one input */
	DEPTH = 2,		/* threads that wait for one another */
	THREADS = 6,		/* in one input */
	EDGE = 192,		/* bytes checked at both ends of an object */
	RECORD_BYTES = 1 << 28,
	WALK_INPUTS = 16,	/* from one trim to the next */
};

/* Below what makes hz4 advise huge pages: clearing those takes long. */
#define LIVE_MAX ((size_t)120 << 20)

struct object {
	unsigned char *p;
	size_t n, usable, align;
	unsigned char key;
};

struct input {
	const uint8_t *at, *end;
	unsigned depth, threads, forks, checks;
	bool failing; /* hz4's system calls may fail */
};

static struct object objects[OBJECTS];
static size_t live;

static unsigned
byte(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

/* Sizes of all kinds; the last kind is what must be refused. */
static size_t
draw_size(struct input *in)
{
	unsigned b = byte(in), k = byte(in);
	size_t n = (size_t)(b & 31) << 8 | k;

	switch (b >> 5) {
	case 0:
		return k;
	case 1:
		return n;
	case 2:
		return hz4_classes[1 + k % (HZ4_CLS_ZERO - 1)].size + (b & 3) -
		       1;
	case 3:
		return n * 16;
	case 4:
		return n * 256;
	case 5:
		return k * (size_t)HZ4_PAGE + (b & 31);
	case 6:
		return HZ4_HUGE_MIN - 64 * (size_t)HZ4_PAGE +
		       k * (size_t)HZ4_PAGE + (b & 31);
	default:
		return (b & 1 ? SIZE_MAX : (size_t)PTRDIFF_MAX + 1) - (b & 2) *
			       k;
	}
}

/* More than any address space has. */
static bool
impossible(size_t n)
{
	return n > (size_t)1 << 48;
}

/* --- contents ------------------------------------------------------------ */

/* The next byte of an object of n bytes that is filled and checked. */
static size_t
step(size_t i, size_t n)
{
	size_t stride = n > HZ4_PAGE ? 65521 : 509;

	if (i + 1 < EDGE || i + 1 + EDGE >= n)
		return i + 1;
	return hz4_min(i + stride, n - EDGE);
}

static unsigned char
pattern(unsigned char key, size_t i)
{
	return (unsigned char)(key + i * 13 + (i >> 8) * 7 + (i >> 16));
}

static void
paint(const struct object *o)
{
	size_t i;

	for (i = 0; i < o->n; i = step(i, o->n))
		o->p[i] = pattern(o->key, i);
}

/* What paint left in the first n bytes of an object of o->n at p. */
static void
verify(const struct object *o, const unsigned char *p, size_t n)
{
	size_t i;

	for (i = 0; i < o->n && i < n; i = step(i, o->n))
		need(p[i] == pattern(o->key, i),
		     "byte %zu of %zu at %p is %02x", i, o->n, (void *)o->p,
		     p[i]);
}

static void
need_zeros(const unsigned char *p, size_t n)
{
	size_t i;

	if (n <= HZ4_CLASS_MAX) {
		need(n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0),
		     "calloc of %zu at %p is not zero", n, (const void *)p);
		return;
	}
	for (i = 0; i < n; i += 512)
		need(p[i] == 0, "calloc of %zu: byte %zu", n, i);
}

/* --- the shadow heap ----------------------------------------------------- */

static void
need_apart(const struct object *new)
{
	const struct object *o;

	for (o = objects; o < objects + OBJECTS; o++)
		need(o == new || o->p == NULL ||
			     o->p + o->usable <= new->p ||
			     new->p + new->usable <= o->p,
		     "%p of %zu lies in %p of %zu", (void *)new->p,
		     new->usable, (void *)o->p, o->usable);
}

/* `p` was given for n bytes; errno and what is allowed are looked at. */
static bool
granted(struct input *in, void *p, size_t n)
{
	if (p == NULL)
		need((in->failing || impossible(n)) && errno == ENOMEM,
		     "%zu bytes refused, errno %d", n, errno);
	else
		need(!impossible(n), "%zu bytes granted", n);
	return p != NULL;
}

static void
enter(struct object *o, void *p, size_t n, size_t align)
{
	o->p = p;
	o->n = n;
	o->align = hz4_max(align, HZ4_ALIGN);
	o->usable = api_malloc_usable_size(p);
	o->key = (unsigned char)(o->key * 5 + 71);
	need((uintptr_t)p % o->align == 0, "%p is not aligned to %zu", p,
	     o->align);
	need(o->usable >= n, "%p has %zu bytes of %zu", p, o->usable, n);
	need_apart(o);
	/* All of the usable size is the user's. */
	if (o->key % 4 == 0)
		o->n = o->usable;
	paint(o);
	live += o->usable;
}

static void
leave(struct object *o)
{
	verify(o, o->p, o->n);
	need(api_malloc_usable_size(o->p) == o->usable,
	     "the usable size of %p has changed", (void *)o->p);
	live -= o->usable;
}

/* --- calls --------------------------------------------------------------- */

static struct object *
draw_object(struct input *in)
{
	unsigned i = byte(in);

	return &objects[(i * 2 + byte(in)) % OBJECTS];
}

static size_t
draw_align(struct input *in)
{
	unsigned b = byte(in);

	/* Up to 4 MiB; above that what is only tried. */
	return (size_t)1 << (b < 250 ? b % 23 : b - 192);
}

static void
give_back(struct object *o, unsigned how)
{
	void *p = o->p;

	if (p == NULL)
		return;
	leave(o);
	o->p = NULL;
	errno = MARK;
	switch (how % 6) {
	case 0:
		api_cfree(p);
		break;
	case 1:
		api_free_sized(p, o->n);
		break;
	case 2:
		api_free_aligned_sized(p, o->align, o->n);
		break;
	case 3:
		need(api_realloc(p, 0) == NULL, "realloc(p, 0)");
		break;
	default:
		api_free(p);
	}
	need(errno == MARK, "a free has set errno to %d", errno);
}

static void
plain(struct input *in, struct object *o, size_t n)
{
	void *p;

	if (live + n > LIVE_MAX && !impossible(n))
		return;
	p = api_malloc(n);
	if (granted(in, p, n))
		enter(o, p, n, 1);
}

static void
zeroed(struct input *in, struct object *o, size_t n, size_t times)
{
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(n, times, &bytes))
		bytes = SIZE_MAX;
	if (live + bytes > LIVE_MAX && !impossible(bytes))
		return;
	p = api_calloc(n, times);
	if (!granted(in, p, bytes))
		return;
	need_zeros(p, bytes);
	enter(o, p, bytes, 1);
}

static bool
is_pow2(size_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static void
aligned(struct input *in, struct object *o, size_t n, size_t align,
	unsigned how)
{
	void *p = &p;
	int r;

	if (live + n + align > LIVE_MAX && !impossible(n) &&
	    align < LIVE_MAX)
		return;
	errno = MARK;
	switch (how % 5) {
	case 0:
		align -= how % 7 == 0;
		r = api_posix_memalign(&p, align, n);
		need(errno == (r == ENOMEM ? ENOMEM : MARK),
		     "posix_memalign leaves errno %d", errno);
		need(r == 0 || p == &p, "posix_memalign has written");
		need((r == EINVAL) ==
			     (!is_pow2(align) || align < sizeof(void *)),
		     "posix_memalign(%zu): %d", align, r);
		if (r == EINVAL)
			return;
		errno = r;
		p = r == 0 ? p : NULL;
		break;
	case 1:
		align -= how % 7 == 0;
		p = api_aligned_alloc(align, n);
		if (!is_pow2(align)) {
			need(p == NULL && errno == EINVAL,
			     "aligned_alloc(%zu)", align);
			return;
		}
		break;
	case 2:
		p = api_memalign(align - align / 3, n);
		break;
	case 3:
		align = hz4_os_page;
		p = api_valloc(n);
		break;
	default:
		align = hz4_os_page;
		p = api_pvalloc(n);
		n = impossible(n) ? n : hz4_round_up(hz4_max(n, 1), align);
	}
	if (p == NULL && impossible(align))
		need(errno == ENOMEM, "alignment %zu: errno %d", align, errno);
	else if (granted(in, p, n))
		enter(o, p, n, is_pow2(align) ? align : 1);
}

static void
resize(struct input *in, struct object *o, size_t n)
{
	struct object was = *o;
	void *p;

	if (o->p == NULL) {
		plain(in, o, n);
		return;
	}
	if (n == 0 || (live + n > LIVE_MAX && !impossible(n)))
		return;
	verify(o, o->p, o->n);
	p = api_realloc(o->p, n);
	if (!granted(in, p, n)) {
		verify(o, o->p, o->n);
		return;
	}
	verify(&was, p, n);
	need(n > was.usable || n < was.usable || p == was.p,
	     "realloc to the usable size moves");
	live -= was.usable;
	o->p = NULL;
	enter(o, p, n, 1);
}

/* A row of objects of one size, or of frees up or down the table. */
static void
burst(struct input *in, bool fill)
{
	unsigned first = byte(in), n = byte(in), how = byte(in);
	size_t size = fill ? draw_size(in) : 0;
	unsigned i;

	for (i = 0; i < n; i++) {
		unsigned k = (first + (how & 1 ? i : n - i)) % OBJECTS;

		if (!fill)
			give_back(&objects[k], how >> 1);
		else if (objects[k].p == NULL)
			plain(in, &objects[k], size);
	}
}

static void
walk(struct input *in)
{
	if (in->checks++ < CHECKS)
		need(hz4_check() == 0, "the heap is not in order");
}

static void
set_option(struct input *in)
{
	static const char *const row[] = {
		"purge_delay=0",    "purge_delay=3600000", "purge_lazy=0",
		"purge_lazy=1",	    "huge_pages=0",	   "huge_pages=1",
		"huge_threshold=0", "huge_threshold=128",  "thread_cache=0",
		"thread_cache=64",  "thread_cache=9216",   "stats_classes=1",
	};
	const char *text = row[byte(in) % (sizeof row / sizeof *row)];

	need(hz4_option_assign(text, strlen(text)), "%s", text);
}

static void
ask(struct input *in)
{
	char text[600];
	size_t size = byte(in) * (size_t)2, n;
	struct mallinfo2 m = api_mallinfo2();

	need(m.uordblks + m.hblkhd + 1 > 0, "mallinfo2");
	memset(text, '#', sizeof text);
	n = hz4_info_report(text, size, size & 2 ? HZ4_JSON : HZ4_TEXT);
	need(text[size] == '#', "written behind the buffer");
	need(size == 0 || n == 0 || memchr(text, 0, size) != NULL,
	     "no end within %zu bytes", size);
}

static void
fail(struct input *in)
{
	unsigned n = byte(in);

	/* Once something may have failed, later calls may still feel it. */
	in->failing = in->failing || n % 64 != 0;
	hz4_os_fail_from(n % 64);
}

/* --- threads and forks --------------------------------------------------- */

static void run(struct input *in, unsigned operations);

struct part {
	struct input *in;
	unsigned operations;
};

static void *
in_thread(void *arg)
{
	struct part *part = arg;

	run(part->in, part->operations);
	return NULL;
}

static void
thread(struct input *in)
{
	struct part part = { in, byte(in) };
	pthread_t id;

	if (in->depth == DEPTH || in->threads++ == THREADS)
		return;
	need(pthread_create(&id, NULL, in_thread, &part) == 0, "no thread");
	in->depth++;
	pthread_join(id, NULL);
	in->depth--;
}

static void
free_all(void)
{
	unsigned i;

	for (i = 0; i < OBJECTS; i++)
		give_back(&objects[i], i);
}

/* The child does what the parent does next, and lets go of all it has. */
static void
branch(struct input *in)
{
	unsigned operations = byte(in);
	int status;
	pid_t pid;

	if (in->forks++ != 0)
		return;
	pid = fork();
	need(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		need(hz4_check() == 0, "the child's heap is not in order");
		run(in, operations);
		free_all();
		hz4_os_fail_from(0);
		api_malloc_trim(0);
		need(hz4_check() == 0, "the child leaves no order");
		_exit(0);
	}
	/* The fuzzer's clock ticks by signals. */
	while (waitpid(pid, &status, 0) == -1)
		need(errno == EINTR, "waitpid: %s", strerror(errno));
	need(status == 0, "the child's wait status is %x",
	     (unsigned)status);
}

static void
one(struct input *in)
{
	unsigned op = byte(in);
	struct object *o;
	size_t n;

	switch (op % 32) {
	case 0:
		burst(in, true);
		return;
	case 1:
		burst(in, false);
		return;
	case 2:
		thread(in);
		return;
	case 3:
		branch(in);
		return;
	case 4:
		fail(in);
		return;
	case 5:
		set_option(in);
		return;
	case 6:
		walk(in);
		return;
	case 7:
		ask(in);
		return;
	case 8:
		api_malloc_trim(op);
		return;
	case 9:
		need(api_mallopt((int)byte(in) - 12, 1) >= 0, "mallopt");
		api_free(NULL);
		return;
	default:
		break;
	}
	o = draw_object(in);
	if (op % 32 < 18 || op % 32 == 31) {
		give_back(o, op / 32 + op % 32);
		return;
	}
	n = draw_size(in);
	if (op % 32 < 22) {
		resize(in, o, n);
		return;
	}
	give_back(o, op / 32);
	if (op % 32 < 26)
		plain(in, o, n);
	else if (op % 32 < 28)
		zeroed(in, o, n, op < 128 ? 1 : byte(in));
	else
		aligned(in, o, n, draw_align(in), op / 32 + byte(in));
}

static void
run(struct input *in, unsigned operations)
{
	while (in->at < in->end && operations-- > 0)
		one(in);
}

static void
need_nothing_left(void)
{
	struct hz4_info info;

	need(live == 0, "%zu bytes", live);
	hz4_info_get(&info);
	need(info.live_objects == 0 && info.live == 0,
	     "%zu objects, %zu bytes are lost", (size_t)info.live_objects,
	     (size_t)info.live);
}

/* Both take longer than most inputs. */
static void
trim_and_walk(void)
{
	need(hz4_check() == 0, "the heap is not in order");
	api_malloc_trim(0);
	need(hz4_check() == 0, "the heap is not in order after a trim");
	need_nothing_left();
}

/* --- the fuzzer ---------------------------------------------------------- */

static uint8_t *record;
static size_t recorded;
static unsigned long inputs;

static void
remember(const uint8_t *data, size_t size)
{
	uint32_t n = (uint32_t)size;

	if (record == NULL || recorded + sizeof n + size > RECORD_BYTES)
		return;
	memcpy(record + recorded + sizeof n, data, size);
	memcpy(record + recorded, &n, sizeof n);
	recorded += sizeof n + size;
}

static void
replay(const char *path)
{
	int fd = open(path, O_RDONLY);
	uint8_t data[1 << 16];
	unsigned long runs = 0;
	uint32_t n;

	need(fd >= 0, "%s", path);
	/* The file is longer than what was recorded: zeros end it. */
	while (read(fd, &n, sizeof n) == sizeof n && n != 0 &&
	       n <= sizeof data && read(fd, data, n) == (ssize_t)n) {
		runs++;
		LLVMFuzzerTestOneInput(data, n);
	}
	close(fd);
	fprintf(stderr, "%s: %lu inputs without a failure\n", path, runs);
	exit(0);
}

static void
open_record(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);

	need(fd >= 0 && ftruncate(fd, RECORD_BYTES) == 0, "%s", path);
	record = mmap(NULL, RECORD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		      fd, 0);
	need(record != MAP_FAILED, "%s", path);
	close(fd);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	hz4_thread_start();
	if (getenv("HZ4_FUZZ_REPLAY") != NULL)
		replay(getenv("HZ4_FUZZ_REPLAY"));
	if (getenv("HZ4_FUZZ_RECORD") != NULL)
		open_record(getenv("HZ4_FUZZ_RECORD"));
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .end = data + size };

	if (size == 0)
		return 0;
	remember(data, size);
	run(&in, UINT32_MAX);
	free_all();
	hz4_os_fail_from(0);
	need_nothing_left();
	if (++inputs % WALK_INPUTS == 0)
		trim_and_walk();
	return 0;
}
