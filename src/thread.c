/*
 * thread.c - making and ending threads' caches, and fork.
 *
 * The structures of ended threads wait in a pool for the next thread, the
 * latest first, with what their caches hold: a short thread finds what the one
 * before it had use for.  They keep their counters, so sums need no hand-over.
 *
 * Fork: nothing is locked over it.  The child has one thread and finds
 * each lock free, or held by that very thread (fork called from a signal
 * handler), or held by a thread that is gone; what the last kind protects
 * is started afresh, by whoever comes by first (lock.h).  The caches of the
 * other threads are adopted by the pool when the thread that forked first
 * looks at it: many children never do.  Another thread of the child cannot
 * know which cache is that one's, and leaves them all.
 */
#include "thread.h"

#include "backtrace.h"
#include "guard.h"
#include "holes.h"
#include "idle.h"
#include "l1.h"
#include "list.h"
#include "lock.h"
#include "log.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "probe.h"
#include "samples.h"
#include "spans.h"
#include "view.h"

#include <pthread.h>
#include <string.h>

struct hz4_thread {
	struct hz4_cache cache;
	struct hz4_list link;	  /* in the pool [lock: threads] */
	struct hz4_thread *older; /* made before [const] */
	uint32_t owner;		  /* its mark, 0 in the pool [lock: threads] */
	bool full;		  /* came to the pool so [lock: threads] */
};

enum thread_state { FRESH, STARTING, LIVE, ENDED };

HZ4_TLS struct hz4_cache *hz4_tls_cache =
	(struct hz4_cache *)&hz4_empty_cache;
HZ4_TLS struct hz4_cache *hz4_tls_operators =
	(struct hz4_cache *)&hz4_empty_cache;
static HZ4_TLS unsigned char tls_state; /* enum thread_state */
static HZ4_TLS unsigned char tls_freed; /* while it is FRESH */

static struct {
	struct hz4_lock lock;
	struct hz4_list ended; /* the pool [lock] */
	/*
	 * The latest made; leads to all of them.
	 * [lock] writes; [atomic] release: `older` comes before
	 */
	struct hz4_thread *_Atomic made;
	/*
	 * In the child of a fork: caches of gone threads are not adopted yet;
	 * the pool may be half changed. [lock] but in start_afresh
	 */
	bool forked;
	bool torn;
} threads = {
	.lock = HZ4_LOCK_INIT(HZ4_RANK_THREADS),
	.ended = { &threads.ended, &threads.ended },
};

enum key_state { KEY_NONE, KEY_MADE, KEY_FAILED };

static struct {
	struct hz4_lock lock;
	/* Acquire and release: size classes and options are ready. [atomic] */
	_Atomic bool ready;
	/* Acquire and release: `key`, or that there is none. [atomic] */
	_Atomic int key_state;
	pthread_key_t key; /* [const] once made */
} process = { .lock = HZ4_LOCK_INIT(HZ4_RANK_INIT) };

/* [atomic] relaxed: figures only. */
static _Atomic int64_t bare_net[HZ4_CLS_END];

int64_t
hz4_thread_bare_net(unsigned cls)
{
	return hz4_peek(&bare_net[cls]);
}

void
hz4_thread_add_bare(unsigned cls, int64_t n)
{
	atomic_fetch_add_explicit(&bare_net[cls], n, memory_order_relaxed);
}

/* [atomic] relaxed, added to by any thread: figures only. */
static struct hz4_counts bare_counts[HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];

const struct hz4_counts *
hz4_thread_bare_counts(unsigned cls)
{
	return &bare_counts[cls];
}

void
hz4_thread_count_slow(unsigned cls, enum hz4_counter which)
{
	if (!HZ4_MID_STATS_B1)
		return;
	if (hz4_tls_cache != &hz4_empty_cache)
		hz4_count(hz4_tls_cache->counts, cls, which, 1);
	else
		atomic_fetch_add_explicit(&bare_counts[cls].value[which], 1,
					  memory_order_relaxed);
}

const struct hz4_view_threads hz4_view_threads = {
	.caches = HZ4_VIEW_OF(threads.made),
	.older = HZ4_VIEW_MEMBER(struct hz4_thread, older),
	.bare_net = HZ4_VIEW_EACH(bare_net[0], sizeof bare_net[0]),
};

/* The note "hz4", type 1: how far the view (note.c) lies from it. */
__asm__(".pushsection .note.hz4,\"a\",%note\n"
	".balign 4\n"
	".long 4, 4, 1\n"
	".asciz \"hz4\"\n"
	".long hz4_view - .\n"
	".popsection\n");

/*
 * With -flto the linker takes out of an archive what compilers ask for, and
 * sees the note when it is too late.
 */
extern const struct hz4_view hz4_view;
static const struct hz4_view *const hz4_brings_view __attribute__((used)) =
	&hz4_view;

static struct hz4_thread *
of_link(struct hz4_list *l)
{
	return hz4_container(l, struct hz4_thread, link);
}

/* Into the pool if it belongs there, else out of it. */
static void
put_locked(struct hz4_thread *t)
{
	hz4_list_remove(&t->link);
	if (t->owner == 0)
		hz4_list_push(&threads.ended, &t->link);
}

/* To or from a thread; `owner` is 0 in the pool. */
static void
move_locked(struct hz4_thread *t, uint32_t owner)
{
	int change = (owner != 0) - (t->owner != 0);

	t->owner = owner;
	put_locked(t);
	if (change != 0)
		hz4_share_add_user(change);
}

/*
 * After a fork.  Of the threads that were there before only the one that
 * forked is live, and if this is that one, the others are gone: into the pool
 * with what they have left.
 */
static void
regroup_locked(void)
{
	uint32_t self = hz4_lock_self(), users = 0;
	bool torn = threads.torn, known = hz4_fork_is_old(self);
	struct hz4_thread *t;

	if (!torn && !known)
		return;
	/* First: a signal handler may fork once more. */
	threads.torn = false;
	threads.forked = !known;
	if (torn)
		hz4_list_init(&threads.ended);
	for (t = hz4_peek(&threads.made); t != NULL; t = t->older) {
		bool gone = known && t->owner != 0 && t->owner != self &&
			    hz4_fork_is_old(t->owner);

		/* A handler's fork, while this thread empties it: later. */
		if (gone && hz4_lock_is_mine(&t->cache.lock)) {
			gone = false;
			threads.forked = true;
		}
		if (gone) {
			hz4_lock_acquire(&t->cache.lock);
			hz4_cache_adopt(&t->cache);
			hz4_lock_release(&t->cache.lock);
			t->full = true;
			t->owner = 0;
		}
		if (torn)
			hz4_list_init(&t->link);
		if (torn || gone)
			put_locked(t);
		users += t->owner != 0;
	}
	hz4_share_set_users(users);
}

static void
lock_threads(void)
{
	hz4_lock_acquire(&threads.lock);
	if (hz4_unlikely(threads.forked))
		regroup_locked();
}

static void
unlock_threads(void)
{
	hz4_lock_release(&threads.lock);
}

/*
 * The latest of the pool, now the caller's; or of those that may hold objects.
 * NULL when there is none.
 */
static struct hz4_thread *
take_ended(bool full)
{
	struct hz4_thread *t = NULL;
	struct hz4_list *l;

	lock_threads();
	for (l = threads.ended.next; l != &threads.ended; l = l->next)
		if (!full || of_link(l)->full)
			break;
	if (l != &threads.ended) {
		t = of_link(l);
		move_locked(t, hz4_lock_self());
	}
	unlock_threads();
	return t;
}

static void
put_ended(struct hz4_thread *t, bool full)
{
	lock_threads();
	t->full = full;
	move_locked(t, 0);
	unlock_threads();
}

static struct hz4_thread *
make_thread(void)
{
	struct hz4_thread *t = take_ended(false);

	if (t != NULL)
		return t;
	t = hz4_meta_alloc(sizeof *t);
	if (t == NULL)
		return NULL;
	memset(t, 0, sizeof *t);
	hz4_list_init(&t->link);
	lock_threads();
	t->older = hz4_peek(&threads.made);
	hz4_cache_init(&t->cache, t->older == NULL);
	move_locked(t, hz4_lock_self());
	atomic_store_explicit(&threads.made, t, memory_order_release);
	unlock_threads();
	return t;
}

/*
 * The thread's end.  Other destructors may still run after this one, and
 * allocate and free: they work on the spans directly.
 */
static void
end_thread(void *arg)
{
	struct hz4_thread *t = arg;

	hz4_tls_operators = (struct hz4_cache *)&hz4_empty_cache;
	hz4_tls_cache = (struct hz4_cache *)&hz4_empty_cache;
	hz4_cache_end(&t->cache);
	tls_state = ENDED;
	put_ended(t, true);
	HZ4_PROBE1(thread_end, &t->cache);
}

/* With a mark the thread is known again in the child. */
static void
before_fork(void)
{
	hz4_lock_self();
}

/*
 * A thread that is gone may have been emptying another one's cache, and been
 * about to note what it took or gave.
 */
HZ4_SLOW static void
repair_caches(void)
{
	size_t taken = 0;
	struct hz4_thread *t = atomic_load_explicit(&threads.made,
						    memory_order_acquire);

	for (; t != NULL; t = t->older) {
		if (hz4_fork_lost(&t->cache.lock)) {
			hz4_cache_cut_off(&t->cache);
			hz4_fork_drop(&t->cache.lock);
		}
		taken += t->cache.taken;
	}
	hz4_share_set_taken(taken);
}

/*
 * For hz4_fork_watch.  A child may do no more than exec: it and all it calls
 * lie in one place (HZ4_SLOW) and write little, since each page costs a fault.
 */
HZ4_SLOW static void
start_afresh(void)
{
	if (hz4_fork_lost(&process.lock))
		hz4_fork_drop(&process.lock);
	if (hz4_fork_lost(&threads.lock)) {
		threads.torn = true;
		hz4_fork_drop(&threads.lock);
	}
	threads.forked = true;
	if (hz4_fork_is_old(hz4_lock_self()) &&
	    !hz4_lock_is_mine(&threads.lock))
		hz4_share_set_users(tls_state == LIVE);
	repair_caches();
	hz4_backtrace_fork_child();
	hz4_idle_fork_child();
	hz4_l1_fork_child();
	hz4_spans_fork_child();
	hz4_holes_fork_child();
	hz4_samples_fork_child();
	hz4_guard_fork_child();
	hz4_pageheap_fork_child();
	hz4_meta_fork_child();
}

/*
 * Before anything is locked: a thread that has never come by may fork while
 * this one holds locks.
 */
static void
watch_forks(void)
{
	static _Atomic bool watched;

	if (!hz4_peek(&watched) &&
	    !atomic_exchange_explicit(&watched, true, memory_order_relaxed))
		hz4_fork_watch(hz4_os_map_wiped(), start_afresh);
}

void
hz4_thread_start(void)
{
	if (hz4_likely(atomic_load_explicit(&process.ready,
					    memory_order_acquire)))
		return;
	watch_forks();
	hz4_lock_acquire(&process.lock);
	if (!hz4_peek(&process.ready)) {
		hz4_os_init();
		hz4_sizeclass_init();
		hz4_spans_init();
		hz4_option_init();
		if (hz4_option(HZ4_OPT_os_page) != 0)
			hz4_os_pretend_page(hz4_option(HZ4_OPT_os_page));
		atomic_store_explicit(&process.ready, true,
				      memory_order_release);
	}
	hz4_lock_release(&process.lock);
}

/*
 * Once a process.  Both calls may run a preloaded wrapper that allocates:
 * the caller's cache is in place by now, and no lock is held.  Two threads
 * that are first at the same time both make a key, and one drops its own.
 * False when there will be no call at a thread's end.
 */
static bool
have_key(void)
{
	int state = atomic_load_explicit(&process.key_state,
					 memory_order_acquire);
	pthread_key_t key;
	bool made;
	bool first;

	if (hz4_likely(state != KEY_NONE))
		return state == KEY_MADE;
	made = pthread_key_create(&key, end_thread) == 0;
	hz4_lock_acquire(&process.lock);
	state = hz4_peek(&process.key_state);
	first = state == KEY_NONE;
	if (first) {
		state = made ? KEY_MADE : KEY_FAILED;
		process.key = made ? key : 0;
		atomic_store_explicit(&process.key_state, state,
				      memory_order_release);
	}
	hz4_lock_release(&process.lock);
	if (first && pthread_atfork(before_fork, NULL, hz4_fork_in_child) != 0)
		hz4_log("no memory to register the fork handler");
	if (made && !first)
		pthread_key_delete(key);
	return state == KEY_MADE;
}

struct hz4_cache *
hz4_thread_cache(void)
{
	struct hz4_thread *t;

	if (hz4_likely(hz4_tls_cache != &hz4_empty_cache))
		return hz4_tls_cache;
	if (tls_state != FRESH)
		return NULL;
	tls_state = STARTING;
	hz4_thread_start();
	t = make_thread();
	if (t == NULL) {
		tls_state = FRESH;
		return NULL;
	}
	tls_state = LIVE;
	hz4_tls_cache = &t->cache;
	/* A cache that nobody would empty in the end must not be filled. */
	if (!have_key() || pthread_setspecific(process.key, t) != 0) {
		end_thread(t);
		return NULL;
	}
	HZ4_PROBE1(thread_start, &t->cache);
	return &t->cache;
}

struct hz4_cache *
hz4_thread_cache_to_free(void)
{
	if (tls_state != FRESH || tls_freed == HZ4_FIRST_FREES)
		return hz4_thread_cache();
	tls_freed++;
	return NULL;
}

void
hz4_thread_flush_ended(void)
{
	struct hz4_thread *t;

	/* One at a time, as a cache of our own: no lock is held meanwhile. */
	while ((t = take_ended(true)) != NULL) {
		if (hz4_cache_enter(&t->cache) != NULL) {
			hz4_cache_flush(&t->cache);
			hz4_cache_leave(&t->cache);
		}
		put_ended(t, false);
	}
}

void
hz4_thread_each(void (*visit)(struct hz4_cache *c, void *arg), void *arg)
{
	struct hz4_thread *t;

	lock_threads();
	for (t = hz4_peek(&threads.made); t != NULL; t = t->older)
		visit(&t->cache, arg);
	unlock_threads();
}

struct hz4_cache *
hz4_thread_next(const struct hz4_cache *c)
{
	struct hz4_thread *t;

	/* Acquire: what it leads to comes before. */
	t = c == NULL ? atomic_load_explicit(&threads.made,
					     memory_order_acquire) :
			((const struct hz4_thread *)(const void *)c)->older;
	return t != NULL ? &t->cache : NULL;
}
