/*
 * os.h - the system calls that get, give back and describe memory, and the
 * few others that the allocator makes.
 *
 * Those for memory, the clock and the CPUs keep errno: what a failure means
 * to the user is decided by their callers, and free() must not change errno
 * at all; those for files tell by it why they failed.  All go to the kernel
 * directly (sys.h), but for two questions of hz4_os_extend.
 *
 * Layer 1.
 */
#ifndef HZ4_OS_H
#define HZ4_OS_H

#include "base.h"

/* The kernel's page size in bytes; valid after hz4_os_init. [const] */
extern size_t hz4_os_page;

/*
 * Asks for all that later calls tell of the machine: a sandbox may allow the
 * process nothing but its memory, lock and yield calls after its first malloc.
 */
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
 * The same for what one call of the program asked for: the system counts it
 * as promised, and refuses by its own rules what there cannot be.
 */
void *hz4_os_map_counted(size_t size, size_t align);

/* Zeroed memory where nothing is mapped; false when refused, or not free. */
bool hz4_os_map_at(void *at, size_t size);

/*
 * Map memory for hz4's own structures: an OS page without access lies on
 * either side of it, if the system lets us.  It is never given back.
 */
void *hz4_os_map_guarded(size_t size);

/*
 * For files that hz4 itself writes, without libc's points of cancellation:
 * open one, or create it new, for its owner alone; -1 with errno set.
 */
int hz4_os_open(const char *path);
int hz4_os_create(const char *path);
void hz4_os_close(int fd);

/* The whole text; false with errno set when there is no room for it. */
bool hz4_os_write(int fd, const char *text, size_t n);

/* The same to a file; EFBIG instead of SIGXFSZ at RLIMIT_FSIZE. */
bool hz4_os_extend(int fd, const char *text, size_t n);

/* As read(2), but for signals. */
long hz4_os_read_some(int fd, void *to, size_t n);

/* The first n bytes; false when there are fewer. */
bool hz4_os_read(int fd, void *to, size_t n);

/*
 * Map the first `size` bytes of an open file, shared, to read and write.
 * NULL: refused.
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
 * Whether the page at `p`, whose contents are lost by this, is locked in
 * memory, so that the system would not purge it.
 */
bool hz4_os_is_pinned(void *p);

/* Whether new mappings are (mlockall); `otherwise` when there is no telling. */
bool hz4_os_pins_new(bool otherwise);

/*
 * Forbid or allow every access to whole OS pages; the contents stay.  False
 * when the system refuses.
 */
bool hz4_os_protect(void *p, size_t size, bool access);

/*
 * Make pages resident that are about to be touched.  False where the kernel
 * does not know that (before 5.14), forbids it, or has no memory.
 */
bool hz4_os_populate(void *p, size_t size);

/* Advise for or against huge pages; whether the kernel takes the advice. */
bool hz4_os_advise_huge(void *p, size_t size, bool huge);

/* Milliseconds of a clock that never goes back; cheap and coarse. */
uint64_t hz4_os_now(void);

/* The same in microseconds, and exact. */
uint64_t hz4_os_now_us(void);

/* Microseconds of CPU time that the calling thread has had: a system call. */
uint64_t hz4_os_cpu_us(void);

/* Bytes of memory that the machine has, as far as they can be addressed. */
size_t hz4_os_memory(void);

/* CPUs that the first thread might run on at the start, at least 1. */
unsigned hz4_os_cpus(void);

/* Let another thread run that waits for this CPU, if one does. */
void hz4_os_yield(void);

/*
 * Debug builds: let the n-th and every later call from now on that may
 * fail, fail (0 turns it off).  Without effect otherwise.
 */
void hz4_os_fail_from(unsigned long n);

#endif
