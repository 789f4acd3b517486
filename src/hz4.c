/*
 * hz4.c - the public hz4_* calls, and what the library does when it is
 * loaded.
 */
#include "hz4/hz4.h"

#include "heap.h"
#include "info.h"
#include "live.h"
#include "log.h"
#include "option.h"
#include "os.h"
#include "profile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who asks about the allocator, or tunes it, runs on it. */
HZ4_BRINGS(malloc);

HZ4_EXPORT const char *
hz4_version(void)
{
	return PACKAGE_VERSION;
}

HZ4_EXPORT const char *
hz4_flavour(void)
{
	return hz4_info_flavour();
}

HZ4_EXPORT int
hz4_option_get(const char *name, char *value, size_t size)
{
	char text[HZ4_OPTION_PATH_MAX];

	hz4_thread_start();
	if (!hz4_option_text(name, text, sizeof text))
		return EINVAL;
	if (strlen(text) >= size)
		return ERANGE;
	memcpy(value, text, strlen(text) + 1);
	return 0;
}

HZ4_EXPORT int
hz4_option_set(const char *name, const char *value)
{
	char text[HZ4_OPTION_PATH_MAX + 64];
	int n;

	hz4_thread_start();
	/* As HZ4_OPTIONS would have it, so that what is listed can be said. */
	if (strchr(name, '=') != NULL || strchr(value, ',') != NULL)
		return EINVAL;
	n = snprintf(text, sizeof text, "%s=%s", name, value);
	if (n < 0 || (size_t)n >= sizeof text ||
	    !hz4_option_assign(text, (size_t)n))
		return EINVAL;
	return 0;
}

HZ4_EXPORT size_t
hz4_stats_text(char *text, size_t size)
{
	return hz4_info_report(text, size, HZ4_TEXT);
}

HZ4_EXPORT size_t
hz4_stats_json(char *text, size_t size)
{
	return hz4_info_report(text, size, HZ4_JSON);
}

HZ4_EXPORT size_t
hz4_release_free_memory(void)
{
	return hz4_heap_trim();
}

HZ4_EXPORT int
hz4_profile_start(size_t rate)
{
	hz4_thread_start();
	if (rate == 0)
		rate = hz4_option(HZ4_OPT_profile);
	return hz4_profile_on(rate) ? 0 : ENOMEM;
}

HZ4_EXPORT void
hz4_profile_stop(void)
{
	hz4_profile_off();
}

HZ4_EXPORT int
hz4_profile_dump(const char *path)
{
	return hz4_profile_write(path);
}

HZ4_EXPORT void
hz4_profile_reset(void)
{
	hz4_profile_forget();
}

HZ4_EXPORT size_t
hz4_good_size(size_t size)
{
	return hz4_heap_good_size(size);
}

/* Before main; the first malloc may have come long before. */
__attribute__((constructor)) static void
announce(void)
{
	char options[1200];

	hz4_thread_start();
	hz4_option_init();
	hz4_live_start();
	hz4_profile_begin();
	if (!hz4_option(HZ4_OPT_verbose))
		return;
	hz4_option_list(options, sizeof options);
	hz4_log("%s %s %s", PACKAGE_VERSION, hz4_info_flavour(), options);
}

static void
flush(FILE *file)
{
	if (ftrylockfile(file) != 0)
		return;
	(void)fflush(file);
	funlockfile(file);
}

/* After the program's own exit handlers; destructors may still follow. */
__attribute__((destructor)) static void
leave(void)
{
	bool leaks = hz4_profile_end();

	hz4_live_stop();
	if (!leaks || hz4_option(HZ4_OPT_leaks_status) == 0)
		return;
	/*
	 * No destructor can change what exit was called with.  Unlike exit's,
	 * this flush waits for a file that another thread reads from.
	 */
	if (ftrylockfile(stdin) == 0) {
		funlockfile(stdin);
		(void)fflush(NULL);
	} else {
		flush(stdout);
		flush(stderr);
	}
	_exit((int)hz4_option(HZ4_OPT_leaks_status));
}
