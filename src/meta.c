/*
 * meta.c - a bump allocator with lists of free blocks, four sizes to a
 * doubling.
 */
#include "meta.h"

#include "lock.h"
#include "os.h"
#include "pageheap.h"
#include "tune.h"
#include "view.h"

enum { UNIT = 64, BINS = 128 };

/* A free block; the only link that lies in freed memory is metadata's. */
struct block {
	struct block *next;
};

/* The head of a chunk, one unit. */
struct chunk {
	struct chunk *older;
	size_t bytes;
};

/*
 * The first chunk, part of the library's own image: a small program never
 * maps another.
 */
static char first_chunk[64 * 1024] __attribute__((aligned(4096)));

static struct {
	struct hz4_lock lock;
	struct block *bin[BINS]; /* see bin_of [lock] */
	char *next;		 /* unused rest of the chunk [lock] */
	char *end;		 /* [lock] */
	/*
	 * Bytes, and of these what is purged or not used yet.  [lock] writes
	 * the first; [atomic] seq_cst: who sees a new chunk's bytes unused sees
	 * them mapped
	 */
	_Atomic size_t mapped;
	_Atomic size_t unused;
	struct chunk *chunks;	 /* the latest first [lock] */
} meta = {
	.lock = HZ4_LOCK_INIT(HZ4_RANK_META),
	.mapped = sizeof first_chunk,
	.unused = sizeof first_chunk,
};

/* Round a size up to that of its bin, and tell which one it is. */
static unsigned
bin_of(size_t *size)
{
	size_t units = (*size + UNIT - 1) / UNIT;
	unsigned shift = units < 8 ? 0 : hz4_log2(units) - 2;

	units = hz4_round_up(units, (size_t)1 << shift);
	/* Rounding up may have reached the next doubling. */
	shift = units < 8 ? 0 : hz4_log2(units) - 2;
	*size = units * UNIT;
	return shift * 4 + (unsigned)(units >> shift);
}

static void
add_unused(ptrdiff_t bytes)
{
	atomic_fetch_add(&meta.unused, (size_t)bytes);
}

static bool
more_locked(size_t size)
{
	size_t want = hz4_pageheap_pinned() ? HZ4_PAGE : HZ4_META_CHUNK;
	size_t least = hz4_round_up(size + UNIT, HZ4_PAGE);
	size_t chunk = hz4_max(least, want);
	struct chunk *head;
	char *p;

	if (meta.next == NULL && size <= sizeof first_chunk) {
		meta.next = first_chunk;
		meta.end = first_chunk + sizeof first_chunk;
		return true;
	}
	p = hz4_os_map_guarded(chunk);
	if (p == NULL && chunk > least) {
		chunk = least;
		p = hz4_os_map_guarded(chunk);
	}
	if (p == NULL)
		return false;
	head = (struct chunk *)(void *)p;
	head->older = meta.chunks;
	head->bytes = chunk;
	meta.chunks = head;
	meta.mapped += chunk;
	add_unused((ptrdiff_t)chunk - UNIT);
	meta.next = p + UNIT;
	meta.end = p + chunk;
	return true;
}

void *
hz4_meta_alloc(size_t size)
{
	unsigned bin = bin_of(&size);
	struct block *b;

	hz4_lock_acquire(&meta.lock);
	b = meta.bin[bin];
	if (b != NULL) {
		meta.bin[bin] = b->next;
	} else if ((size_t)(meta.end - meta.next) >= size ||
		   more_locked(size)) {
		b = (struct block *)(void *)meta.next;
		meta.next += size;
		add_unused(-(ptrdiff_t)size);
	}
	hz4_lock_release(&meta.lock);
	return b;
}

void
hz4_meta_free(void *p, size_t size)
{
	unsigned bin = bin_of(&size);
	struct block *b = p;

	hz4_lock_acquire(&meta.lock);
	b->next = meta.bin[bin];
	meta.bin[bin] = b;
	hz4_lock_release(&meta.lock);
}

/* From the end of a chunk, which is that of an OS page. */
void *
hz4_meta_pages(size_t bytes)
{
	char *p = NULL;

	hz4_lock_acquire(&meta.lock);
	if ((size_t)(meta.end - meta.next) >= bytes || more_locked(bytes)) {
		p = meta.end -= bytes;
		add_unused(-(ptrdiff_t)bytes);
	}
	hz4_lock_release(&meta.lock);
	return p;
}

bool
hz4_meta_purge(void *pages, size_t bytes)
{
	/* Of larger OS pages others have a part. */
	bool done = HZ4_SLAB % hz4_os_page == 0 &&
		    hz4_os_purge(pages, bytes, false);

	if (done)
		add_unused((ptrdiff_t)bytes);
	return done;
}

void
hz4_meta_use_again(size_t bytes)
{
	add_unused(-(ptrdiff_t)bytes);
}

size_t
hz4_meta_unused(void)
{
	return atomic_load(&meta.unused);
}

void
hz4_meta_each(void (*see)(uintptr_t start, uintptr_t end, void *arg),
	      void *arg)
{
	struct chunk *c;

	hz4_lock_acquire(&meta.lock);
	c = meta.chunks;
	hz4_lock_release(&meta.lock);
	see((uintptr_t)first_chunk, (uintptr_t)first_chunk +
					    sizeof first_chunk, arg);
	for (; c != NULL; c = c->older)
		see((uintptr_t)c, (uintptr_t)c + c->bytes, arg);
}

size_t
hz4_meta_mapped(void)
{
	return atomic_load(&meta.mapped);
}

const struct hz4_view_meta hz4_view_meta = {
	.mapped = HZ4_VIEW_OF(meta.mapped),
	.unused = HZ4_VIEW_OF(meta.unused),
};

void
hz4_meta_fork_child(void)
{
	unsigned i;

	if (!hz4_fork_lost(&meta.lock))
		return;
	hz4_fork_seize(&meta.lock);
	for (i = 0; i < BINS; i++)
		meta.bin[i] = NULL;
	/* Not NULL: the first chunk is not to be used twice. */
	meta.next = meta.end;
	if (meta.next == NULL)
		meta.next = meta.end = first_chunk + sizeof first_chunk;
	hz4_fork_drop(&meta.lock);
}
