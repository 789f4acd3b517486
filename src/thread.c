/*
 * thread.c - making and ending threads' caches, and fork.
 *
 * The structures of ended threads wait in a pool for the next thread; they
 * keep their counters, so sums need no hand-over.
 *
 * Fork: nothing is locked over it.  The child has one thread and finds
 * each lock free, or held by that very thread (fork called from a signal
 * handler), or held by a thread that is gone; what the last kind protects
 * is started afresh.  The caches of the other threads are adopted by the
 * pool, but for those that were inside a slow path.
 */
#include "thread.h"

#include "list.h"
#include "lock.h"
#include "log.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "transfer.h"

#include <pthread.h>
#include <string.h>

struct hz4_thread {
	struct hz4_cache cache;
	struct hz4_list link; /* [lock: threads] */
	/* Ended with its caches full: its thread is gone. [lock: threads] */
	bool adopted;
};

enum thread_state { FRESH, STARTING, LIVE, ENDED };

HZ4_TLS struct hz4_cache *hz4_tls_cache = &hz4_empty_cache;
static HZ4_TLS unsigned char tls_state; /* enum thread_state */

static struct {
	struct hz4_lock lock;
	struct hz4_list live;  /* [lock] */
	struct hz4_list ended; /* the pool [lock] */
	bool first_made;       /* [lock] */
} threads = {
	.lock = HZ4_LOCK_INIT(HZ4_RANK_THREADS),
	.live = { &threads.live, &threads.live },
	.ended = { &threads.ended, &threads.ended },
};

enum key_state { KEY_NONE, KEY_MADE, KEY_FAILED };

static struct {
	struct hz4_lock lock;
	/* Acquire and release: shapes and options are ready. [atomic] */
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

void
hz4_thread_start(void)
{
	if (hz4_likely(atomic_load_explicit(&process.ready,
					    memory_order_acquire)))
		return;
	hz4_lock_acquire(&process.lock);
	if (!hz4_peek(&process.ready)) {
		hz4_os_init();
		hz4_sizeclass_init();
		hz4_transfer_init();
		hz4_option_init();
		if (hz4_option(HZ4_OPT_os_page) != 0)
			hz4_os_pretend_page(hz4_option(HZ4_OPT_os_page));
		atomic_store_explicit(&process.ready, true,
				      memory_order_release);
	}
	hz4_lock_release(&process.lock);
}

static struct hz4_thread *
of_link(struct hz4_list *l)
{
	return hz4_container(l, struct hz4_thread, link);
}

static struct hz4_thread *
make_thread(void)
{
	struct hz4_thread *t = NULL;
	bool first;

	hz4_lock_acquire(&threads.lock);
	if (!hz4_list_empty(&threads.ended)) {
		t = of_link(threads.ended.next);
		hz4_list_remove(&t->link);
		hz4_list_push(&threads.live, &t->link);
		t->adopted = false;
	}
	first = !threads.first_made;
	threads.first_made = true;
	hz4_lock_release(&threads.lock);
	if (t != NULL)
		return t;
	t = hz4_meta_alloc(sizeof *t);
	if (t == NULL)
		return NULL;
	memset(t, 0, sizeof *t);
	hz4_cache_init(&t->cache, first);
	hz4_lock_acquire(&threads.lock);
	hz4_list_push(&threads.live, &t->link);
	hz4_lock_release(&threads.lock);
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

	hz4_tls_cache = &hz4_empty_cache;
	tls_state = ENDED;
	hz4_poke(&t->cache.busy, true);
	hz4_cache_reset(&t->cache);
	hz4_poke(&t->cache.busy, false);
	hz4_budget_add_user(-1);
	hz4_lock_acquire(&threads.lock);
	hz4_list_remove(&t->link);
	hz4_list_push(&threads.ended, &t->link);
	hz4_lock_release(&threads.lock);
}

static void
adopt(struct hz4_list *l)
{
	struct hz4_thread *t = of_link(l);

	hz4_list_remove(l);
	/* A cache in the middle of a change is left alone for ever. */
	if (!hz4_peek(&t->cache.busy)) {
		t->adopted = true;
		hz4_list_push(&threads.ended, l);
	}
}

static void
fork_child(void)
{
	struct hz4_thread *self = NULL;
	struct hz4_list *l, *next;

	if (hz4_tls_cache != &hz4_empty_cache)
		self = hz4_container(hz4_tls_cache, struct hz4_thread, cache);
	hz4_lock_fork_child(&process.lock);
	if (hz4_lock_fork_child(&threads.lock)) {
		hz4_list_init(&threads.live);
		hz4_list_init(&threads.ended);
		if (self != NULL)
			hz4_list_push(&threads.live, &self->link);
	}
	for (l = threads.live.next; l != &threads.live; l = next) {
		next = l->next;
		if (self == NULL || l != &self->link)
			adopt(l);
	}
	hz4_budget_fork_child(self != NULL);
	hz4_transfer_fork_child();
	hz4_pageheap_fork_child();
	hz4_meta_fork_child();
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
	if (first && pthread_atfork(NULL, NULL, fork_child) != 0)
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
	hz4_budget_add_user(1);
	hz4_tls_cache = &t->cache;
	tls_state = LIVE;
	/* A cache that nobody would empty in the end must not be filled. */
	if (!have_key() || pthread_setspecific(process.key, t) != 0) {
		end_thread(t);
		return NULL;
	}
	return &t->cache;
}

void
hz4_thread_flush_ended(void)
{
	struct hz4_list *l;
	struct hz4_thread *t;

	/* One at a time, as a thread of our own: no lock is held meanwhile. */
	for (;;) {
		hz4_lock_acquire(&threads.lock);
		for (l = threads.ended.next; l != &threads.ended; l = l->next)
			if (of_link(l)->adopted)
				break;
		t = l == &threads.ended ? NULL : of_link(l);
		if (t != NULL)
			hz4_list_remove(l);
		hz4_lock_release(&threads.lock);
		if (t == NULL)
			return;
		hz4_cache_reset(&t->cache);
		t->adopted = false;
		hz4_lock_acquire(&threads.lock);
		hz4_list_push(&threads.ended, l);
		hz4_lock_release(&threads.lock);
	}
}

void
hz4_thread_nudge_all(void)
{
	struct hz4_list *l;

	hz4_lock_acquire(&threads.lock);
	for (l = threads.live.next; l != &threads.live; l = l->next)
		hz4_stacks_nudge(&of_link(l)->cache);
	hz4_lock_release(&threads.lock);
}

static void
each(struct hz4_list *list, void (*visit)(struct hz4_cache *c, void *arg),
     void *arg)
{
	struct hz4_list *l;

	for (l = list->next; l != list; l = l->next)
		visit(&of_link(l)->cache, arg);
}

void
hz4_thread_each(void (*visit)(struct hz4_cache *c, void *arg), void *arg)
{
	hz4_lock_acquire(&threads.lock);
	each(&threads.live, visit, arg);
	each(&threads.ended, visit, arg);
	hz4_lock_release(&threads.lock);
}
