/*
 * file.h - names of the files that hz4 itself writes.
 *
 * Layer 2.
 */
#ifndef HZ4_FILE_H
#define HZ4_FILE_H

#include "base.h"

/*
 * Note where the process is: a relative path is one from there, wherever the
 * process goes.  Once, at the start.
 */
void hz4_file_note_directory(void);

/*
 * The path, absolute, with every %p replaced by the process's number; true
 * when there was one.  What becomes too long is cut.
 */
bool hz4_file_expand(char *to, size_t size, const char *path, int pid);

/*
 * Why the name is not to be had, else NULL: what has it is an old file of
 * this user's, and is removed.  Nothing is opened for that, and no link
 * followed.
 */
const char *hz4_file_clear_name(const char *path);

#endif
