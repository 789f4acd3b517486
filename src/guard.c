/*
 * guard.c - the pool, and what is told.
 *
 *     closed | slot 0 | closed | slot 1 | closed | ...       OS pages
 *
 * Slots that nobody has used come first, then the one that was freed longest
 * ago, so that each stays closed as long as can be.  What is known of a slot
 * lies elsewhere.
 *
 * The handler looks at what is known without the lock, which the thread that
 * has stepped on a closed page may hold; it writes a line at a time and
 * allocates nothing.  Then the process goes on to what it would have done: a
 * fault in the pool comes again, with the action that was there before in
 * force; for any other one that is called, and the guards stay.  A handler
 * that the program puts in place later is found at the next allocation, or
 * at the one after it where a fault is just being seen to.
 */
#include "guard.h"

#include "backtrace.h"
#include "lock.h"
#include "log.h"
#include "meta.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "probe.h"
#include "sys.h"
#include "view.h"
#include "where.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { SLOTS = 64, FRAMES = 24 };

/* Of a thread's registers. */
#if defined(__x86_64__)
#define FRAME_OF(c) (c)->uc_mcontext.gregs[REG_RBP]
#define ADDRESS_OF(c) (c)->uc_mcontext.gregs[REG_RIP]
#elif defined(__i386__)
#define FRAME_OF(c) (c)->uc_mcontext.gregs[REG_EBP]
#define ADDRESS_OF(c) (c)->uc_mcontext.gregs[REG_EIP]
#elif defined(__aarch64__)
#define FRAME_OF(c) (c)->uc_mcontext.regs[29]
#define ADDRESS_OF(c) (c)->uc_mcontext.pc
#elif defined(__arm__)
#define FRAME_OF(c) (c)->uc_mcontext.arm_fp
#define ADDRESS_OF(c) (c)->uc_mcontext.arm_pc
#else
/* The walk then begins in the handler. */
#define FRAME_OF(c) 0
#define ADDRESS_OF(c) 0
#endif

enum state { UNUSED, LIVE, FREED };

struct event {
	int thread;
	unsigned depth;
	uintptr_t frame[FRAMES];
};

struct slot {
	uintptr_t object;
	size_t size;
	/* enum state.  [lock] writes; [atomic] relaxed: the handler reads */
	_Atomic uint32_t state;
	struct event taken, given;
};

uintptr_t hz4_guard_pool;
size_t hz4_guard_bytes;

static struct {
	struct hz4_lock lock;
	struct slot *slot;	   /* [const] once made */
	uint32_t fresh;		   /* slots used so far [lock] */
	uint32_t queue[SLOTS];	   /* freed ones, a ring [lock] */
	uint32_t first, count;	   /* [lock] */
	bool shut;		   /* no more: the queue is torn [lock] */
	/* [lock] writes; [atomic] relaxed: figures */
	_Atomic size_t objects, bytes;
	_Atomic uint64_t random;
	_Atomic bool told;	   /* one report is enough */
} pool = { .lock = HZ4_LOCK_INIT(HZ4_RANK_SAMPLES) };

/*
 * What the program had in place, in one of two places.  [atomic] seq_cst: who
 * reads counts itself, then looks which; who writes finds nobody counted, then
 * writes the other one, so that who comes meanwhile does not look there.
 */
static struct {
	_Atomic uint32_t writer; /* hz4_claim; 0 none */
	_Atomic uint32_t readers, current;
	struct sigaction action[2]; /* of `writer`, readers of `current` */
} before;

/* False: somebody reads or writes it just now. */
static bool
set_before(const struct sigaction *action)
{
	uint32_t other;
	bool can;

	if (!hz4_claim(&before.writer))
		return false;
	other = 1 - atomic_load(&before.current);
	can = atomic_load(&before.readers) == 0;
	if (can) {
		before.action[other] = *action;
		atomic_store(&before.current, other);
	}
	hz4_unclaim(&before.writer);
	return can;
}

static struct sigaction
get_before(void)
{
	struct sigaction action;

	atomic_fetch_add(&before.readers, 1);
	action = before.action[atomic_load(&before.current)];
	atomic_fetch_sub(&before.readers, 1);
	return action;
}

static void on_fault(int signal, siginfo_t *info, void *context);

/* Put the handler in front of what is there, if it is not already. */
static void
install(void)
{
	struct sigaction now, ours;

	if (sigaction(SIGSEGV, NULL, &now) != 0 ||
	    ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) ||
	    !set_before(&now))
		return;
	memset(&ours, 0, sizeof ours);
	ours.sa_sigaction = on_fault;
	/* What the program's may be interrupted by, ours may. */
	ours.sa_mask = now.sa_mask;
	ours.sa_flags = SA_SIGINFO | SA_ONSTACK |
			(now.sa_flags & (SA_NODEFER | SA_RESTART));
	sigaction(SIGSEGV, &ours, NULL);
}

static bool
make_pool(void)
{
	size_t bytes = hz4_round_up((2 * SLOTS + 1) * hz4_os_page, HZ4_PAGE);
	size_t known = SLOTS * sizeof *pool.slot;
	void *p = hz4_os_map(bytes, HZ4_PAGE);

	if (p == NULL)
		return false;
	pool.slot = hz4_meta_alloc(known);
	if (pool.slot == NULL || !hz4_os_protect(p, bytes, false) ||
	    !hz4_pageheap_admit((uintptr_t)p, bytes)) {
		hz4_os_unmap(p, bytes);
		return false;
	}
	memset(pool.slot, 0, known);
	hz4_pagemap_set((uintptr_t)p, bytes / HZ4_PAGE, HZ4_CLS_MARKED, NULL);
	hz4_guard_pool = (uintptr_t)p;
	hz4_guard_bytes = bytes;
	return true;
}

bool
hz4_guard_start(void)
{
	if (hz4_guard_bytes == 0 && !make_pool())
		return false;
	hz4_backtrace_start();
	install();
	return true;
}

static uintptr_t
page_of(uint32_t i)
{
	return hz4_guard_pool + (2 * (uintptr_t)i + 1) * hz4_os_page;
}

static void
note(struct event *e, const struct hz4_caller *from,
     struct hz4_sampler *thread)
{
	e->thread = (int)hz4_syscall(SYS_gettid, 0);
	e->depth = hz4_backtrace(e->frame, FRAMES, from, thread);
}

/* --- taking and giving ----------------------------------------------- */

/* A slot for an object; SLOTS when there is none. */
static uint32_t
take_slot_locked(void)
{
	uint32_t i;

	if (pool.shut)
		return SLOTS;
	if (pool.fresh < SLOTS)
		return pool.fresh++;
	if (pool.count == 0)
		return SLOTS;
	i = pool.queue[pool.first];
	pool.first = (pool.first + 1) % SLOTS;
	pool.count--;
	return i;
}

static void
give_slot_locked(uint32_t i)
{
	pool.queue[(pool.first + pool.count) % SLOTS] = i;
	pool.count++;
}

static uint32_t
take_slot(void)
{
	uint32_t i;

	hz4_lock_acquire(&pool.lock);
	i = take_slot_locked();
	hz4_lock_release(&pool.lock);
	return i;
}

static void
add_figures(size_t size, size_t sign)
{
	atomic_fetch_add_explicit(&pool.objects, sign, memory_order_relaxed);
	atomic_fetch_add_explicit(&pool.bytes, sign * size,
				  memory_order_relaxed);
}

/* At the left or the right end of the page, by a coin. */
static uintptr_t
place(uint32_t i, size_t size, size_t align)
{
	uint64_t coin = atomic_fetch_add_explicit(
		&pool.random, UINT64_C(0x9e3779b97f4a7c15),
		memory_order_relaxed);

	align = hz4_max(align, HZ4_ALIGN);
	return coin >> 62 & 1 ?
		       page_of(i) :
		       page_of(i) + ((hz4_os_page - size) & ~(align - 1));
}

void *
hz4_guard_take(size_t size, size_t align, const struct hz4_caller *from,
	       struct hz4_sampler *thread)
{
	struct slot *s;
	uint32_t i;

	if (size > hz4_os_page || align > hz4_os_page)
		return NULL;
	install();
	i = take_slot();
	if (i == SLOTS)
		return NULL;
	s = &pool.slot[i];
	if (!hz4_os_protect((void *)page_of(i), hz4_os_page, true)) {
		hz4_lock_acquire(&pool.lock);
		give_slot_locked(i);
		hz4_lock_release(&pool.lock);
		return NULL;
	}
	s->object = place(i, size, align);
	s->size = size;
	s->given.depth = 0;
	note(&s->taken, from, thread);
	hz4_poke(&s->state, LIVE);
	add_figures(size, 1);
	return (void *)s->object;
}

/* --- what is told ---------------------------------------------------- */

static void
tell_event(const char *what, const struct event *e)
{
	unsigned i;

	hz4_log("  %s by thread %d%s", what, e->thread,
		e->depth > 0 ? ":" : ", its stack could not be walked");
	for (i = 0; i < e->depth && i < FRAMES; i++)
		hz4_where_log(e->frame[i]);
}

static size_t
distance_to(const struct slot *s, uintptr_t address)
{
	if (address < s->object)
		return s->object - address;
	return address < s->object + s->size ?
		       0 : address - (s->object + s->size) + 1;
}

static const char *
side(const struct slot *s, uintptr_t address)
{
	if (address < s->object)
		return "before";
	return address < s->object + s->size ? "inside" : "after";
}

static void
tell(const char *kind, const struct slot *s, uintptr_t address,
     const struct event *access)
{
	size_t far = distance_to(s, address);

	if (far == 0)
		far = address - s->object;
	hz4_log("guard: %s: ptr %#zx, %zu bytes %s an object of %zu bytes at "
		"%#zx", kind, (size_t)address, far, side(s, address), s->size,
		(size_t)s->object);
	HZ4_PROBE2(guard_report, address, s->object);
	tell_event("used", access);
	tell_event("allocated", &s->taken);
	if (hz4_peek(&s->state) == FREED)
		tell_event("freed", &s->given);
}

/* The slot whose object is nearest; NULL: none was ever near. */
static struct slot *
nearest(uintptr_t address)
{
	size_t page = (address - hz4_guard_pool) / hz4_os_page;
	struct slot *best = NULL, *s;
	size_t i;

	/* Of a slot itself, or those on both sides of a closed page. */
	for (i = page > 0 ? (page - 1) / 2 : 0; i <= page / 2; i++) {
		if (i >= SLOTS || hz4_peek(&pool.slot[i].state) == UNUSED)
			continue;
		s = &pool.slot[i];
		if (best == NULL ||
		    distance_to(s, address) < distance_to(best, address))
			best = s;
	}
	return best;
}

static const char *
kind_of(const struct slot *s, uintptr_t address)
{
	if (hz4_peek(&s->state) == FREED)
		return "use after free";
	return address < s->object ? "underflow" : "overflow";
}

/* Where the fault was, for the first frame. */
static struct hz4_caller
fault_caller(const ucontext_t *c)
{
	(void)c;
	return (struct hz4_caller){ (const void *)FRAME_OF(c),
				    (const void *)ADDRESS_OF(c) };
}

static void
tell_fault(uintptr_t address, const ucontext_t *context)
{
	struct hz4_sampler thread = { .inside = true };
	struct hz4_caller from = fault_caller(context);
	struct slot *s = nearest(address);
	struct event access;

	if (atomic_exchange_explicit(&pool.told, true, memory_order_relaxed))
		return;
	access.thread = (int)hz4_syscall(SYS_gettid, 0);
	access.depth = hz4_backtrace(access.frame, FRAMES, &from, &thread);
	/* No call: it stands where a return address would lie behind. */
	if (access.depth > 0 && from.address != NULL)
		access.frame[0]++;
	if (s != NULL)
		tell(kind_of(s, address), s, address, &access);
}

/* The program's own handler, as the kernel would have called it. */
static void
call_before(int signal, siginfo_t *info, void *context)
{
	struct sigaction was = get_before();
	bool plain = !(was.sa_flags & SA_SIGINFO);
	void (*handler)(int) = was.sa_handler;
	void (*action)(int, siginfo_t *, void *) = was.sa_sigaction;

	/* What somebody has sent may be ignored, a fault may not. */
	if (plain && handler == SIG_IGN && info->si_code <= 0)
		return;
	if (plain && (handler == SIG_IGN || handler == SIG_DFL)) {
		/* The process ends, and who looks into it need not ask. */
		if (info->si_code > 0)
			hz4_log("guard: fault at %#zx, nowhere near a guarded "
				"object", (size_t)info->si_addr);
		sigaction(signal, &was, NULL);
		if (info->si_code <= 0)
			hz4_syscall(SYS_tgkill, getpid(),
				    hz4_syscall(SYS_gettid, 0), signal);
		return;
	}
	if (was.sa_flags & SA_RESETHAND) {
		was.sa_handler = SIG_DFL;
		was.sa_flags = 0;
		(void)set_before(&was);
	}
	if (plain)
		handler(signal);
	else
		action(signal, info, context);
}

static void
on_fault(int signal, siginfo_t *info, void *context)
{
	struct sigaction was;
	int saved = errno;

	if (info->si_code > 0 && hz4_guard_owns(info->si_addr)) {
		tell_fault((uintptr_t)info->si_addr, context);
		/* It comes again, and then as if nobody had looked. */
		was = get_before();
		sigaction(signal, &was, NULL);
	} else {
		call_before(signal, info, context);
	}
	errno = saved;
}

/* --- giving ---------------------------------------------------------- */

/* The slot of a live object, or NULL. */
static struct slot *
find_live(const void *p)
{
	struct slot *s = nearest((uintptr_t)p);

	if (s == NULL || s->object != (uintptr_t)p ||
	    hz4_peek(&s->state) != LIVE)
		return NULL;
	return s;
}

_Noreturn static HZ4_SLOW void
reject(const void *p, const char *call, const struct event *access)
{
	struct slot *s = nearest((uintptr_t)p);
	bool twice = s != NULL && s->object == (uintptr_t)p;
	bool asks = strcmp(call, "malloc_usable_size()") == 0;
	const char *kind = asks ? "invalid pointer" : "invalid free";

	if (twice)
		kind = asks ? "use after free" : "double free";
	if (s != NULL)
		tell(kind, s, (uintptr_t)p, access);
	hz4_fatal("%s: invalid pointer or double free: ptr %p", call, p);
}

void
hz4_guard_give(void *p, const struct hz4_caller *from,
	       struct hz4_sampler *thread)
{
	struct event access;
	struct slot *s;
	uint32_t i;

	note(&access, from, thread);
	hz4_lock_acquire(&pool.lock);
	s = find_live(p);
	if (s != NULL) {
		s->given = access;
		hz4_poke(&s->state, FREED);
	}
	hz4_lock_release(&pool.lock);
	if (s == NULL)
		reject(p, "free()", &access);
	i = (uint32_t)(s - pool.slot);
	add_figures(pool.slot[i].size, (size_t)-1);
	hz4_os_purge((void *)page_of(i), hz4_os_page, false);
	/* Where that is refused it is open, and may be used again. */
	hz4_os_protect((void *)page_of(i), hz4_os_page, false);
	hz4_lock_acquire(&pool.lock);
	give_slot_locked(i);
	hz4_lock_release(&pool.lock);
}

HZ4_SLOW size_t
hz4_guard_usable(const void *p, const char *call)
{
	struct hz4_sampler none = { .inside = true };
	struct slot *s = find_live(p);
	struct event access;

	if (s != NULL)
		return s->size;
	note(&access, HZ4_CALLER, &none);
	reject(p, call, &access);
}

void
hz4_guard_figures(size_t *objects, size_t *bytes)
{
	*objects = hz4_peek(&pool.objects);
	*bytes = hz4_peek(&pool.bytes);
}

const struct hz4_view_guards hz4_view_guards = {
	.mapped = HZ4_VIEW_OF(hz4_guard_bytes),
	.objects = HZ4_VIEW_OF(pool.objects),
	.bytes = HZ4_VIEW_OF(pool.bytes),
	.pool = HZ4_VIEW_OF(hz4_guard_pool),
	.slots = HZ4_VIEW_OF(pool.slot),
	.object = HZ4_VIEW_MEMBER(struct slot, object),
	.size = HZ4_VIEW_MEMBER(struct slot, size),
	.state = HZ4_VIEW_MEMBER(struct slot, state),
	.depth = HZ4_VIEW_MEMBER(struct slot, taken.depth),
	.frames = HZ4_VIEW_MEMBER_EACH(struct slot, taken.frame[0],
				       sizeof(uintptr_t)),
	.slot_count = SLOTS,
	.slot_bytes = sizeof(struct slot),
};

/* A gone thread may have been changing the queue: no more are guarded. */
void
hz4_guard_fork_child(void)
{
	if (hz4_peek(&before.readers) != 0)
		atomic_store(&before.readers, 0);
	if (!hz4_fork_lost(&pool.lock))
		return;
	hz4_fork_seize(&pool.lock);
	pool.shut = true;
	hz4_fork_drop(&pool.lock);
}
