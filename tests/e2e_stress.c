/*
 * Shadow-checked stress.  Threads allocate, resize, hand over and free
 * objects of all sizes by all entry points; every object is filled with a
 * pattern of its own, which is checked whenever the object is resized, handed
 * over or freed, so that an overlap, a lost byte or a block given out twice
 * shows.  Threads end while their objects live on, and others free those.
 * Now and then one trims or forks, and the child checks what it inherited.
 *
 * A thread draws from a stream of its own and what it receives from others
 * never changes what it draws next, so a seed that failed can be replayed.
 *
 * e2e_stress [-s SEED] [-t THREADS] [-l LIVES] [-n OPERATIONS] [-d SECONDS]
 *
 * LIVES is how many threads there are in all, of which THREADS at a time.
 * With -d, seed after seed until the time is up.
 */
#include "e2e_common.h"

#include <pthread.h>

enum {
	SLOTS = 700,		/* objects a thread holds at most */
	INBOX = 256,		/* objects on the way to a thread */
	MAX_THREADS = 64,
	SPARSE = 65536,		/* larger objects are not filled throughout */
	EDGE = 512,		/* but this much at both ends */
	STEP = 4096,		/* and a word in every page */
	LIVE_LIMIT = 24 * E2E_MIB,	/* bytes a thread holds at most */
	HANG = 180,		/* seconds after which a round hangs */
};

struct object {
	unsigned char *p;
	size_t n;
	size_t alignment;
	uint64_t key;
};

/* Objects that others sent; `box[i]` belongs to whoever runs as thread i. */
struct inbox {
	pthread_mutex_t lock;
	unsigned count;
	struct object object[INBOX];
};

struct worker {
	pthread_t thread;
	unsigned index;		/* which inbox */
	uint64_t life;		/* which stream */
	struct e2e_rng rng;
	uint64_t op;
	size_t live;
	struct object slot[SLOTS];
};

static struct inbox box[MAX_THREADS];
static struct worker *worker[MAX_THREADS];
static unsigned threads = 6;
static uint64_t operations = 60000;
static bool strict;		/* hz4 or libc, which promise more */

/* --- one object --------------------------------------------------------- */

static void
broken(const struct worker *w, const struct object *o, size_t at,
    const char *when)
{
	e2e_die("life %llu, operation %llu, %s: object %p of %zu bytes, "
	    "alignment %zu, differs at %zu (byte %02x)",
	    (unsigned long long)w->life, (unsigned long long)w->op, when,
	    (void *)o->p, o->n, o->alignment, at, o->p[at]);
}

static void
paint(const struct object *o)
{
	if (o->n <= SPARSE) {
		e2e_fill(o->p, o->n, o->key);
		return;
	}
	e2e_fill(o->p, EDGE, o->key);
	for (size_t at = STEP; at + EDGE + 8 <= o->n; at += STEP)
		e2e_fill(o->p + at, 8, o->key + at);
	e2e_fill(o->p + o->n - EDGE, EDGE, ~o->key);
}

/* Check the first n bytes of what paint() left in an object. */
static void
check(const struct worker *w, const struct object *o, size_t n,
    const char *when)
{
	size_t bad;

	if (o->n <= SPARSE) {
		bad = e2e_differs(o->p, n < o->n ? n : o->n, o->key);
		if (bad != E2E_SAME)
			broken(w, o, bad, when);
		return;
	}
	bad = e2e_differs(o->p, n < EDGE ? n : EDGE, o->key);
	if (bad != E2E_SAME)
		broken(w, o, bad, when);
	for (size_t at = STEP; at + EDGE + 8 <= o->n && at + 8 <= n;
	    at += STEP) {
		bad = e2e_differs(o->p + at, 8, o->key + at);
		if (bad != E2E_SAME)
			broken(w, o, at + bad, when);
	}
	if (n < o->n)
		return;
	bad = e2e_differs(o->p + o->n - EDGE, EDGE, ~o->key);
	if (bad != E2E_SAME)
		broken(w, o, o->n - EDGE + bad, when);
}

/* Sizes as programs have them, with the limits of classes more often. */
static size_t
draw_size(struct e2e_rng *r)
{
	size_t dice = e2e_below(r, 1000);

	if (dice < 300)
		return 1 + e2e_below(r, 128);
	if (dice < 650)
		return e2e_log_size(r, 4, 11);
	if (dice < 850)
		return e2e_log_size(r, 11, 16);
	if (dice < 865)
		return e2e_log_size(r, 16, 22);
	if (dice < 870)
		return 0;
	return ((size_t)1 << e2e_below(r, 17)) + e2e_below(r, 3);
}

static size_t
draw_alignment(struct e2e_rng *r)
{
	size_t dice = e2e_below(r, 100);
	unsigned bits = dice < 80 ? 6 : dice < 98 ? 10 : 18;

	return (size_t)E2E_ALIGN << e2e_below(r, bits);
}

/* Get n bytes by the entry point that `how` says. */
static void *
obtain(unsigned how, size_t n, size_t *alignment, size_t wanted)
{
	void *p = NULL;

	*alignment = E2E_ALIGN;
	if (how < 55)
		return e2e_malloc(n);
	if (how < 70)
		return e2e_calloc(n % 8 == 0 ? n / 8 : n, n % 8 == 0 ? 8 : 1);
	if (how < 80)
		return e2e_realloc(NULL, n);
	*alignment = wanted;
	if (how < 87)
		return e2e_memalign(wanted, n);
	if (how < 94)
		return e2e_aligned_alloc(wanted, n);
	if (how < 99)
		return e2e_posix_memalign(&p, wanted, n) == 0 ? p : NULL;
	*alignment = 4096;
	return e2e_valloc(n);
}

static void
sound(const struct worker *w, const struct object *o)
{
	if (o->p == NULL)
		e2e_die("life %llu, operation %llu: no memory for %zu bytes",
		    (unsigned long long)w->life, (unsigned long long)w->op,
		    o->n);
	/* Others align the smallest blocks to 8 only. */
	if (!e2e_aligned(o->p, strict || o->n >= E2E_ALIGN ? o->alignment : 8))
		e2e_die("life %llu, operation %llu: %p of %zu bytes is not "
		    "aligned to %zu", (unsigned long long)w->life,
		    (unsigned long long)w->op, (void *)o->p, o->n,
		    o->alignment);
	if (e2e_usable(o->p) < o->n)
		e2e_die("life %llu, operation %llu: %p has %zu bytes of %zu",
		    (unsigned long long)w->life, (unsigned long long)w->op,
		    (void *)o->p, e2e_usable(o->p), o->n);
}

static void
create(struct worker *w, struct object *o)
{
	unsigned how = (unsigned)e2e_below(&w->rng, 100);
	size_t wanted = draw_alignment(&w->rng);

	o->n = draw_size(&w->rng);
	o->key = e2e_rand(&w->rng);
	o->p = obtain(how, o->n, &o->alignment, wanted);
	sound(w, o);
	if (how >= 55 && how < 70) {
		size_t bad = e2e_nonzero(o->p, o->n);

		if (bad != E2E_SAME)
			broken(w, o, bad, "calloc");
	}
	paint(o);
	w->live += o->n;
}

static void
destroy(struct worker *w, struct object *o, const char *when)
{
	int mark = (int)w->op + 1000;

	check(w, o, o->n, when);
	/* Nobody may see this any more; a stale read would. */
	memset(o->p, 0xdb, o->n < 64 ? o->n : 64);
	errno = mark;
	if (strict && o->key % 16 == 0 && o->n != 0)
		(void)!e2e_realloc(o->p, 0);
	else
		e2e_free(o->p);
	if (strict && errno != mark)
		e2e_die("free of %zu bytes set errno to %d", o->n, errno);
	w->live -= o->n < w->live ? o->n : w->live;
	o->p = NULL;
}

static void
resize(struct worker *w, struct object *o)
{
	struct object was = *o;
	size_t n = draw_size(&w->rng);
	size_t near = e2e_below(&w->rng, 3);

	/* Often just a little larger or smaller, as buffers grow. */
	if (near == 0)
		n = o->n + n % 64;
	else if (near == 1 && o->n > 64)
		n = o->n - n % 64;
	if (n == 0)
		n = 1;
	check(w, o, o->n, "realloc");
	was.p = o->p = e2e_realloc(o->p, n);
	o->n = n;
	o->alignment = E2E_ALIGN;
	sound(w, o);
	check(w, &was, n < was.n ? n : was.n, "after realloc");
	o->key = e2e_rand(&w->rng);
	paint(o);
	w->live += n;
	w->live -= was.n < w->live ? was.n : w->live;
}

/* --- between threads ---------------------------------------------------- */

/* Put an object into an inbox; false if that is full. */
static bool
send(struct inbox *b, const struct object *o)
{
	bool fits;

	pthread_mutex_lock(&b->lock);
	fits = b->count < INBOX;
	if (fits)
		b->object[b->count++] = *o;
	pthread_mutex_unlock(&b->lock);
	return fits;
}

/* Free everything that others sent to an inbox. */
static void
receive(struct worker *w, struct inbox *b)
{
	static __thread struct object taken[INBOX];
	unsigned count;

	pthread_mutex_lock(&b->lock);
	count = b->count;
	memcpy(taken, b->object, count * sizeof(taken[0]));
	b->count = 0;
	pthread_mutex_unlock(&b->lock);
	for (unsigned i = 0; i < count; i++) {
		size_t live = w->live;

		destroy(w, &taken[i], "received");
		w->live = live;
	}
}

static void
hand_over(struct worker *w, struct object *o)
{
	unsigned to = (unsigned)e2e_below(&w->rng, threads);

	check(w, o, o->n, "hand-over");
	if (send(&box[to], o)) {
		w->live -= o->n < w->live ? o->n : w->live;
		o->p = NULL;
	} else {
		destroy(w, o, "inbox full");
	}
}

/* --- fork --------------------------------------------------------------- */

/* What the child of a fork does with the objects that its thread had. */
static void
in_the_child(struct worker *w)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct object *o = &w->slot[i];

		if (o->p == NULL)
			continue;
		check(w, o, o->n, "in the child");
		if (i % 3 == 0)
			destroy(w, o, "freed by the child");
		else if (i % 3 == 1)
			resize(w, o);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (w->slot[i].p == NULL && w->live < LIVE_LIMIT)
			create(w, &w->slot[i]);
	for (unsigned i = 0; i < SLOTS; i++)
		if (w->slot[i].p != NULL)
			destroy(w, &w->slot[i], "the child's own");
	_exit(0);
}

static void
branch(struct worker *w)
{
	pid_t pid = fork();
	int status;

	if (pid == -1)
		e2e_die("fork: %s", strerror(errno));
	if (pid == 0) {
		alarm(60);
		in_the_child(w);
	}
	status = e2e_reap(pid, 60000);
	if (status != 0)
		e2e_die("life %llu, operation %llu: child: wait status %d",
		    (unsigned long long)w->life, (unsigned long long)w->op,
		    status);
}

/* --- threads ------------------------------------------------------------ */

static void
step(struct worker *w)
{
	struct object *o = &w->slot[e2e_below(&w->rng, SLOTS)];
	size_t dice = e2e_below(&w->rng, 100);

	if (w->live > LIVE_LIMIT && o->p != NULL)
		destroy(w, o, "over the limit");
	else if (o->p == NULL)
		create(w, o);
	else if (dice < 45)
		destroy(w, o, "free");
	else if (dice < 65)
		resize(w, o);
	else if (dice < 95)
		hand_over(w, o);
	else if (e2e_usable(o->p) < o->n)
		broken(w, o, 0, "usable size");
}

static void *
live(void *arg)
{
	struct worker *w = arg;
	/* Some lives are short, some leave all they have to others. */
	uint64_t length = operations / (1 + e2e_below(&w->rng, 4));
	bool heir = e2e_below(&w->rng, 3) != 0;

	for (w->op = 0; w->op < length; w->op++) {
		step(w);
		if (w->op % 64 == 0)
			receive(w, &box[w->index]);
		if (w->op % 5000 == 4999)
			e2e_trim(0);
		if (w->op % 30000 == 29999)
			branch(w);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		struct object *o = &w->slot[i];

		if (o->p != NULL && (!heir || !send(&box[i % threads], o)))
			destroy(w, o, "end of life");
	}
	return NULL;
}

static void
be_born(unsigned index, uint64_t life)
{
	struct worker *w = worker[index];

	memset(w, 0, sizeof(*w));
	w->index = index;
	w->life = life;
	w->rng = e2e_rng_start(e2e_seed(), life);
	errno = pthread_create(&w->thread, NULL, live, w);
	if (errno != 0)
		e2e_die("thread: %s", strerror(errno));
}

/* One seed: `lives` threads, `threads` of them at a time. */
static void
one_round(uint64_t seed, uint64_t lives)
{
	struct worker last = { .life = UINT64_MAX };
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
	setenv("HZ4_TEST_SEED", text, 1);
	alarm(HANG * e2e_scale());
	for (uint64_t life = 0; life < lives; life++) {
		unsigned index = (unsigned)(life % threads);

		if (life >= threads)
			pthread_join(worker[index]->thread, NULL);
		be_born(index, life);
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(worker[i]->thread, NULL);
	for (unsigned i = 0; i < threads; i++)
		receive(&last, &box[i]);
	alarm(0);
}

static void
hung(int number)
{
	(void)number;
	e2e_die("a round did not end in time");
}

int
main(int argc, char **argv)
{
	uint64_t seed = e2e_seed();
	uint64_t lives = 30 * e2e_scale();
	uint64_t seconds = 0;
	uint64_t begin = e2e_now();
	int c;

	while ((c = getopt(argc, argv, "s:t:l:n:d:")) != -1) {
		uint64_t n = c == '?' ? 0 : strtoull(optarg, NULL, 0);

		if (c == 's')
			seed = n;
		else if (c == 't' && n >= 1 && n <= MAX_THREADS)
			threads = (unsigned)n;
		else if (c == 'l' && n >= 1)
			lives = n;
		else if (c == 'n' && n >= 1)
			operations = n;
		else if (c == 'd')
			seconds = n;
		else
			return 2;
	}
	if (lives < threads)
		lives = threads;
	strict = e2e_is_hz4() || e2e_is_libc();
	signal(SIGALRM, hung);
	for (unsigned i = 0; i < threads; i++) {
		pthread_mutex_init(&box[i].lock, NULL);
		worker[i] = mmap(NULL, sizeof(*worker[i]),
		    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
		if (worker[i] == MAP_FAILED)
			e2e_die("mmap: %s", strerror(errno));
	}
	do {
		if (seconds != 0)
			printf("seed %llu\n", (unsigned long long)seed);
		fflush(stdout);
		one_round(seed++, lives);
	} while (e2e_now() - begin < seconds * 1000);
	return 0;
}
