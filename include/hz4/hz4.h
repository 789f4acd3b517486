/*
 * hz4/hz4.h - the public interface of the hz4 memory allocator.
 *
 * A program needs none of it to use hz4: malloc and free are libc's names.
 * These calls ask about the allocator and tune it.  See hz4(3).
 *
 * Sizes are in bytes.  All functions may be called from any thread.
 */
#ifndef HZ4_HZ4_H
#define HZ4_HZ4_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A program may define this: its own options, as HZ4_OPTIONS has them, which
 * the environment's add to.  Whatever its symbols' visibility is: the library
 * finds it by the dynamic linker.  NULL is none.
 */
extern const char *hz4_default_options
#ifdef __GNUC__
	__attribute__((visibility("default")))
#endif
	;

/* The release, as "0.1.0".  Never NULL; valid for ever. */
const char *hz4_version(void);

/*
 * The build that is loaded: "base", "dual-tier", "stats" or
 * "dual-tier+stats".
 */
const char *hz4_flavour(void);

/*
 * The value of an option of HZ4_OPTIONS, as text.  Returns 0, EINVAL for an
 * unknown name, or ERANGE when it does not fit `size` bytes.
 */
int hz4_option_get(const char *name, char *value, size_t size);

/*
 * Set an option while the program runs.  Returns 0, or EINVAL for an
 * unknown name or a value out of range; then nothing has changed.  Options
 * that are read at start only (verbose, strict, os_page, profile_signal,
 * guards, stats_file, stats_live) have no effect.  hz4(3) says what profile,
 * profile_stacks, profile_seed and leaks still do when they are set later.
 */
int hz4_option_set(const char *name, const char *value);

/*
 * All figures, as "name value" lines or as one JSON object whose member
 * "schema" numbers the meaning of the others.  With the option
 * stats_classes=1 every size class in use, too: lines "class.SIZE.name
 * value", or an array "classes" of objects; SIZE is 0 for what lies above
 * the classes.  As snprintf: writes at most `size` bytes with the closing
 * NUL and returns the length of the whole, 0 without memory.  `text` may be
 * NULL when `size` is 0.
 */
size_t hz4_stats_text(char *text, size_t size);
size_t hz4_stats_json(char *text, size_t size);

/*
 * Give free memory back to the system, with all that the calling thread's
 * cache holds.  Caches of other threads are emptied as well, but for one object
 * of each size, unless they allocate or free meanwhile.  Returns the bytes that
 * went back.
 */
size_t hz4_release_free_memory(void);

/*
 * The heap profile, see hz4(7).  Start: sample one in `rate` bytes, 0 for the
 * option profile or else 512 KiB; what was counted at another rate is
 * forgotten.  Returns 0, or ENOMEM.  Stop: take no more samples; those that
 * there are stay.  Reset: forget all samples.
 */
int hz4_profile_start(size_t rate);
void hz4_profile_stop(void);
void hz4_profile_reset(void);

/*
 * Write the profile to this path, or for NULL to the next file that the option
 * profile_file names.  Returns 0, or an error number: EINVAL when no profile
 * was ever started, EBUSY when one is just being written, or why the file
 * cannot be.  May be called from a signal handler.
 */
int hz4_profile_dump(const char *path);

/*
 * The bytes that malloc(size) really gets, as malloc_usable_size would tell;
 * 0 for size 0, and when no such allocation can succeed.
 */
size_t hz4_good_size(size_t size);

#ifdef __cplusplus
}
#endif

#endif
