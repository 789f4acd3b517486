/*
 * file.c - where files go, and what may have their names already.
 */
#include "file.h"

#include "sys.h"
#include "view.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* With "/" at its end, or "" [const] once noted. */
static char directory[PATH_MAX];

/*
 * The kernel's call, since libc's own may allocate.  A directory that has been
 * removed, or lies outside the process's root, has no name: relative paths
 * then stay what they are.
 */
void
hz4_file_note_directory(void)
{
	int saved = errno;
	long n = hz4_syscall(SYS_getcwd, directory, sizeof directory - 1);

	if (n < 2 || directory[0] != '/') {
		directory[0] = '\0';
	} else if (n > 2) {
		directory[n - 1] = '/';
		directory[n] = '\0';
	}
	errno = saved;
}

bool
hz4_file_expand(char *to, size_t size, const char *path, int pid)
{
	size_t n = 0, room = size - 1;
	bool unique = false;

	if (*path != '/') {
		n = hz4_min(strlen(directory), room);
		memcpy(to, directory, n);
	}
	while (*path != '\0' && n < room) {
		if (path[0] == '%' && path[1] == 'p') {
			n += (size_t)snprintf(to + n, room - n, "%d", pid);
			unique = true;
			path += 2;
		} else {
			to[n++] = *path++;
		}
	}
	to[hz4_min(n, room)] = '\0';
	return unique;
}

const char *
hz4_file_clear_name(const char *path)
{
	struct stat st;

	/* Who creates it is told why that cannot be. */
	if (lstat(path, &st) != 0)
		return NULL;
	if (S_ISLNK(st.st_mode))
		return "it is a symbolic link";
	if (!S_ISREG(st.st_mode))
		return "it is no regular file";
	if (st.st_uid != geteuid())
		return "it is another user's";
	return unlink(path) == 0 ? NULL : "it cannot be replaced";
}

const struct hz4_view_file hz4_view_file = {
	.directory = HZ4_VIEW_OF(directory),
};
