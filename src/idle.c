/*
 * idle.c - asking, stopping, emptying.
 */
#include "idle.h"

#include "os.h"
#include "thread.h"

/* Nobody waits for the lock: libc's clock may be called with it. */
static struct {
	struct hz4_lock lock;
	/* Where the round goes on, NULL: with the latest. [lock] */
	struct hz4_cache *hand;
	uint64_t began; /* ms [lock] */
	/* Not to go on before, ms.  [lock] writes; [atomic] relaxed: a hint */
	_Atomic uint64_t next;
} idle = { .lock = HZ4_LOCK_INIT(HZ4_RANK_IDLE) };

/* Its thread has what it needs to see that: the lock, or the grace. */
static void
stop(struct hz4_cache *c)
{
	unsigned cls;

	hz4_poke(&c->idle, HZ4_IDLE_STOPPED);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		HZ4_CHAOS();
		hz4_stacks_stop(c, cls);
	}
}

/* The next step with the cache's lock, unless its thread has come by. */
static bool
step_locked(struct hz4_cache *c, uint32_t state, size_t *objects, uint64_t now)
{
	if (hz4_peek(&c->idle) != state)
		return true;
	if (state == HZ4_IDLE_ASKED) {
		stop(c);
		return true;
	}
	if (!hz4_cache_empty(c, objects, now))
		return false;
	hz4_poke(&c->idle, HZ4_IDLE_EMPTY);
	return true;
}

/* One step; false: there are more objects than these. */
static bool
step(struct hz4_cache *c, size_t *objects, uint64_t now)
{
	uint32_t state = hz4_peek(&c->idle);
	bool done;

	/* Acquire: pairs with hz4_cache_leave. */
	if (state == HZ4_IDLE_EMPTY ||
	    atomic_load_explicit(&c->inside, memory_order_acquire) != 0)
		return true;
	if (state == HZ4_IDLE_NO) {
		hz4_poke(&c->idle, HZ4_IDLE_ASKED);
		return true;
	}
	if (!hz4_lock_try(&c->lock))
		return true;
	done = step_locked(c, state, objects, now);
	hz4_lock_release(&c->lock);
	return done;
}

static void
go_on_locked(uint64_t now)
{
	size_t objects = HZ4_IDLE_OBJECTS;
	uint64_t next;
	unsigned n;

	if (idle.hand == NULL) {
		idle.began = now;
		idle.hand = hz4_thread_next(NULL);
	}
	for (n = 0; n < HZ4_IDLE_THREADS && idle.hand != NULL; n++) {
		if (!step(idle.hand, &objects, now))
			break;
		idle.hand = hz4_thread_next(idle.hand);
	}
	/* By a later look at the clock: this thread may have been off. */
	next = hz4_os_now() + HZ4_IDLE_GRACE;
	if (idle.hand == NULL && next < idle.began + HZ4_IDLE_ROUND)
		next = idle.began + HZ4_IDLE_ROUND;
	hz4_poke(&idle.next, next);
}

void
hz4_idle_step(uint64_t now)
{
	if (now < hz4_peek(&idle.next) || !hz4_lock_try(&idle.lock))
		return;
	/* Another one may just have done it. */
	if (now >= hz4_peek(&idle.next))
		go_on_locked(now);
	hz4_lock_release(&idle.lock);
}

static void
step_all(void)
{
	uint64_t now = hz4_os_now();
	struct hz4_cache *c = NULL;
	size_t objects = SIZE_MAX;

	while ((c = hz4_thread_next(c)) != NULL)
		step(c, &objects, now);
}

/* One that is not emptied, and whose thread is in no slow path. */
static bool
one_is_left(void)
{
	struct hz4_cache *c = NULL;

	while ((c = hz4_thread_next(c)) != NULL)
		if (hz4_peek(&c->idle) != HZ4_IDLE_EMPTY &&
		    hz4_peek(&c->inside) == 0)
			return true;
	return false;
}

/* By no clock, which may stand; false: signals leave no time for it. */
static bool
sleep_grace(void)
{
	unsigned naps = 0, tries;

	for (tries = 0; tries < 10 * HZ4_IDLE_NAPS && naps < HZ4_IDLE_NAPS;
	     tries++)
		naps += hz4_lock_nap();
	return naps == HZ4_IDLE_NAPS;
}

/* Another thread may be in a step; not forever, a handler may wait for it. */
static bool
wait_for_lock(void)
{
	unsigned tries = 0;

	while (!hz4_lock_try(&idle.lock)) {
		if (tries++ == HZ4_IDLE_ROUND)
			return false;
		hz4_lock_nap();
	}
	return true;
}

void
hz4_idle_empty_all(void)
{
	int steps = 0;

	if (hz4_share_users() < 2 || !wait_for_lock())
		return;
	while (steps++ < HZ4_IDLE_EMPTY && one_is_left() && sleep_grace())
		step_all();
	hz4_poke(&idle.next, hz4_os_now() + HZ4_IDLE_GRACE);
	hz4_lock_release(&idle.lock);
}

void
hz4_idle_fork_child(void)
{
	if (hz4_fork_lost(&idle.lock)) {
		hz4_poke(&idle.next, 0);
		hz4_fork_drop(&idle.lock);
	}
}
