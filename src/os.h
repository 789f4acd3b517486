/*
 * os.h - the system calls that get, give back and describe memory, and the
 * few others that the allocator makes.
 *
 * Every function keeps errno: what a failure means to the user is decided
 * by its caller, and free() must not change errno at all.  mmap and its
 * like are called without libc's wrappers, so that a preloaded wrapper of
 * them cannot re-enter the allocator.
 *
 * Layer 1.
 */
#ifndef HZ4_OS_H
#define HZ4_OS_H

#include "base.h"

/* The kernel's page size in bytes; valid after hz4_os_init. [const] */
extern size_t hz4_os_page;

void hz4_os_init(void);

/*
 * A test's larger page size; ignored unless a power of two between the
 * kernel's own and hz4's page.
 */
void hz4_os_pretend_page(size_t page);

/*
 * Map `size` bytes of zeroed memory, aligned to `align` (a power of two, at
 * least the OS page).  NULL when the system refuses.
 */
void *hz4_os_map(size_t size, size_t align);

/*
 * Map memory for hz4's own structures: an OS page without access lies on
 * either side of it, if the system lets us.  It is never given back.
 */
void *hz4_os_map_guarded(size_t size);

/*
 * Map the first `size` bytes of an open file, shared, to read and write.
 * NULL with errno set: the one function here that tells why.
 */
void *hz4_os_map_file(int fd, size_t size);

/*
 * Map an OS page that the child of a fork finds all zeros.  NULL: refused,
 * or the kernel knows none.
 */
void *hz4_os_map_wiped(void);

/* Give a mapping back; false when the system refuses (it stays usable). */
bool hz4_os_unmap(void *p, size_t size);

/* What became of a mapping that was to be resized in place. */
enum hz4_resized {
	HZ4_RESIZED,	/* done; bytes that were added are zeroed */
	HZ4_NO_ROOM,	/* it can only grow elsewhere, if there is memory */
	HZ4_NOT_ONE	/* refused: the program has split or locked it */
};
enum hz4_resized hz4_os_resize(void *p, size_t size, size_t new_size);

/* Address space without memory, to move a mapping to.  NULL: refused. */
void *hz4_os_reserve(size_t size, size_t align);

/*
 * Move a mapping, its contents and its page tables, to `to`, a reservation
 * of new_size bytes.  False: the mapping is as it was, and the reservation
 * is lost (it may be somebody else's by now, so nobody may unmap it).
 */
bool hz4_os_move(void *p, size_t size, void *to, size_t new_size);

/*
 * Drop the contents: the range reads as zero afterwards and costs no
 * memory until it is touched.  False when the system refuses: then the
 * contents may still be there.  With `lazy` the kernel takes the memory
 * only when it needs it: the contents may still be there in any case.
 */
bool hz4_os_purge(void *p, size_t size, bool lazy);

/*
 * Forbid or allow every access to whole OS pages; the contents stay.  False
 * when the system refuses.
 */
bool hz4_os_protect(void *p, size_t size, bool access);

/*
 * Make pages resident that are about to be touched: one call is cheaper
 * than a fault for each of them.  Does nothing any more once the kernel has
 * turned out not to know the call, or not to allow it.
 */
void hz4_os_populate(void *p, size_t size);

/* Advise for or against huge pages; whether the kernel takes the advice. */
bool hz4_os_advise_huge(void *p, size_t size, bool huge);

/* Milliseconds of a clock that never goes back; cheap and coarse. */
uint64_t hz4_os_now(void);

/* The same in microseconds, and exact. */
uint64_t hz4_os_now_us(void);

/* Microseconds of CPU time that the calling thread has had: a system call. */
uint64_t hz4_os_cpu_us(void);

/*
 * Bytes of memory that this process may use at most: the machine's, or the
 * control group's limit once hz4_os_read_files has been called.
 */
size_t hz4_os_memory(void);

/*
 * What files tell: that limit, and whether the kernel has huge pages at all.
 * Looks at them once.
 */
void hz4_os_read_files(void);

/* CPUs that the process might run on when it first asked, at least 1. */
unsigned hz4_os_cpus(void);

/* Let another thread run that waits for this CPU, if one does. */
void hz4_os_yield(void);

/*
 * Debug builds: let the n-th and every later call from now on that may
 * fail, fail (0 turns it off).  Folds to nothing otherwise.
 */
void hz4_os_fail_from(unsigned long n);

#endif
