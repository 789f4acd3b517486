/*
 * profdump.c - the profile as text, as gperftools writes it ("heap_v2"), which
 * google-pprof, jeprof and Go's pprof read.
 *
 *     heap profile: LIVE: BYTES [ALL: BYTES] @ heap_v2/RATE
 *     LIVE: BYTES [ALL: BYTES] @ 0xADDRESS 0xADDRESS ...
 *     ...
 *     # what was left out
 *
 *     MAPPED_LIBRARIES:
 *     /proc/self/maps
 *
 * Sums are those of the samples: the reader scales them by the rate.  A file
 * is written under another name and renamed, so that who waits for it finds it
 * whole.
 */
#include "profile.h"

#include "file.h"
#include "lock.h"
#include "log.h"
#include "option.h"
#include "os.h"
#include "samples.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PATH "hz4.%p"
#define PART ".part"

enum { PATH_BYTES = PATH_MAX + HZ4_OPTION_PATH_MAX + 24 };

static struct {
	_Atomic uint32_t writer; /* hz4_claim; 0 none */
	/* One more was asked for meanwhile. [atomic] seq_cst, as writer */
	_Atomic bool again;
	/* All others: whoever is `writer`. */
	uint32_t count;	 /* files so far */
	int fd, error;
	size_t used;
	char buffer[4096];
	char path[PATH_BYTES], part[PATH_BYTES];
	/* The process whose paths need no %p. [const] once noted */
	uint32_t generation;
} dump;

/* --- text ------------------------------------------------------------ */

static void
flush(void)
{
	if (dump.error == 0 && dump.used > 0 &&
	    !hz4_os_extend(dump.fd, dump.buffer, dump.used))
		dump.error = errno != 0 ? errno : EIO;
	dump.used = 0;
}

static void
put(const char *text)
{
	for (; *text != '\0'; text++) {
		if (dump.used == sizeof dump.buffer)
			flush();
		dump.buffer[dump.used++] = *text;
	}
}

static void
put_number(uint64_t n, unsigned base)
{
	char digits[21], *p = digits + sizeof digits - 1;

	*p = '\0';
	do
		*--p = "0123456789abcdef"[n % base];
	while ((n /= base) != 0);
	put(p);
}

struct sums {
	uint64_t live, live_bytes, all, all_bytes;
};

static void
put_sums(const struct sums *s)
{
	put_number(s->live, 10);
	put(": ");
	put_number(s->live_bytes, 10);
	put(" [");
	put_number(s->all, 10);
	put(": ");
	put_number(s->all_bytes, 10);
	put("]");
}

static void
add_site(struct sums *to, const struct hz4_site *s)
{
	to->live += hz4_peek(&s->live);
	to->live_bytes += hz4_peek(&s->live_bytes);
	to->all += hz4_peek(&s->all);
	to->all_bytes += hz4_peek(&s->all_bytes);
}

static void
put_site(const struct hz4_site *s)
{
	struct sums sums = { 0, 0, 0, 0 };
	uint32_t i;

	add_site(&sums, s);
	if (sums.all == 0)
		return;
	put_sums(&sums);
	put(" @");
	for (i = 0; i < s->depth; i++) {
		put(" 0x");
		put_number(s->frame[i], 16);
	}
	put("\n");
}

/* A line that readers of the format pass over. */
static void
put_note(const struct hz4_site *s, const char *why)
{
	struct sums sums = { 0, 0, 0, 0 };

	if (s == NULL)
		return;
	add_site(&sums, s);
	if (sums.all == 0)
		return;
	put("# ");
	put(why);
	put(": ");
	put_sums(&sums);
	put("\n");
}

static void
put_maps(void)
{
	int fd = hz4_os_open("/proc/self/maps");
	long n = 1;

	put("\nMAPPED_LIBRARIES:\n");
	flush();
	while (fd != -1 && dump.error == 0 && n > 0) {
		n = hz4_os_read_some(fd, dump.buffer, sizeof dump.buffer);
		dump.used = n > 0 ? (size_t)n : 0;
		flush();
	}
	if (fd != -1)
		hz4_os_close(fd);
}

static void
put_profile(void)
{
	struct hz4_site *sites = hz4_samples_sites(), *s;
	struct sums sums = { 0, 0, 0, 0 };

	for (s = sites; s != NULL; s = s->older)
		add_site(&sums, s);
	put("heap profile: ");
	put_sums(&sums);
	put(" @ heap_v2/");
	put_number(hz4_profile_rate(), 10);
	put("\n");
	for (s = sites; s != NULL; s = s->older)
		put_site(s);
	put_note(hz4_samples_full(), "dropped, the table of stacks is full "
				     "(profile_stacks)");
	put_note(hz4_samples_unwalked(), "stacks that could not be walked");
	put_maps();
}

/* --- files ----------------------------------------------------------- */

void
hz4_profile_note_start(void)
{
	dump.generation = hz4_fork_generation();
}

static int
refuse(const char *reason, int error)
{
	if (reason != NULL)
		hz4_log("profile_file: cannot create %s: %s", dump.path,
			reason);
	else
		hz4_log("profile_file: cannot create %s: errno %d", dump.path,
			error);
	return error;
}

/* To the file that dump.path names. */
static int
write_file(void)
{
	const char *reason = hz4_file_clear_name(dump.path);

	memcpy(dump.part, dump.path, sizeof dump.path);
	memcpy(dump.part + strlen(dump.path), PART, sizeof PART);
	if (reason == NULL)
		reason = hz4_file_clear_name(dump.part);
	if (reason != NULL)
		return refuse(reason, EEXIST);
	dump.error = 0;
	dump.used = 0;
	dump.fd = hz4_os_create(dump.part);
	if (dump.fd == -1)
		return refuse(NULL, errno);
	put_profile();
	hz4_os_close(dump.fd);
	if (dump.error == 0 && hz4_syscall(SYS_renameat2, AT_FDCWD, dump.part,
					   AT_FDCWD, dump.path) != 0)
		dump.error = errno;
	if (dump.error == 0)
		return 0;
	unlink(dump.part);
	return refuse(NULL, dump.error);
}

/* The next name that the option has; false in a child that has none. */
static bool
name_next(void)
{
	const size_t room = sizeof dump.path - sizeof PART - 20;
	const char *option = hz4_option_path(HZ4_OPT_profile_file);
	bool unique;
	size_t n;

	if (option[0] == '\0')
		option = DEFAULT_PATH;
	unique = hz4_file_expand(dump.path, room, option, getpid());
	if (!unique && dump.generation != hz4_fork_generation())
		return false;
	n = strlen(dump.path);
	(void)snprintf(dump.path + n, sizeof dump.path - n, ".%04u.heap",
		       ++dump.count);
	return true;
}

static int
write_one(const char *path)
{
	if (path != NULL) {
		if (strlen(path) >= sizeof dump.path - sizeof PART)
			return ENAMETOOLONG;
		memcpy(dump.path, path, strlen(path) + 1);
	} else if (!name_next()) {
		return 0;
	}
	return write_file();
}

static int
write_in_turn(const char *path)
{
	int error = EBUSY;

	if (hz4_claim(&dump.writer)) {
		HZ4_CHAOS();
		error = write_one(path);
		hz4_unclaim(&dump.writer);
	} else if (path == NULL) {
		HZ4_CHAOS();
		atomic_store(&dump.again, true);
	}
	/* By who has written, or by who asks where that one has looked. */
	while (atomic_load(&dump.again) && hz4_claim(&dump.writer)) {
		if (atomic_exchange(&dump.again, false))
			(void)write_one(NULL);
		hz4_unclaim(&dump.writer);
	}
	return error;
}

int
hz4_profile_write(const char *path)
{
	int saved = errno, error;

	if (hz4_profile_rate() == 0)
		return EINVAL;
	error = write_in_turn(path);
	errno = saved;
	return error;
}
