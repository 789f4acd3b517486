/*
 * target.c - copying from the process, and finding its view.
 */
#include "config.h"

#include "target.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	HEAD_BYTES = 4096, /* of an object: its headers and notes */
	TEXT_BYTES = 8192, /* of a text */
};

bool
target_get(const struct target *t, uint64_t at, void *to, size_t bytes)
{
	struct iovec here = { to, bytes };
	struct iovec there = { (void *)(uintptr_t)at, bytes };

	return process_vm_readv(t->task, &here, 1, &there, 1, 0) ==
	       (ssize_t)bytes;
}

uint64_t
target_decode(const char *at, uint32_t width)
{
	uint64_t n8;
	uint32_t n4;
	uint16_t n2;

	switch (width) {
	case 8:
		memcpy(&n8, at, sizeof n8);
		return n8;
	case 4:
		memcpy(&n4, at, sizeof n4);
		return n4;
	case 2:
		memcpy(&n2, at, sizeof n2);
		return n2;
	default:
		return 0;
	}
}

uint64_t
target_number(const struct target *t, const struct hz4_view_number *from)
{
	char number[sizeof(uint64_t)];

	if (from->width > sizeof number ||
	    !target_get(t, from->at, number, from->width))
		return 0;
	return target_decode(number, from->width);
}

char *
target_text(const struct target *t, const struct hz4_view_number *from)
{
	char *text;

	if (from->width == 0 || from->width > TEXT_BYTES)
		return NULL;
	text = need(malloc(from->width));
	if (target_get(t, from->at, text, from->width) &&
	    memchr(text, '\0', from->width) != NULL)
		return text;
	free(text);
	return NULL;
}

/* Where the notes of an object are in its file, from its headers. */
static size_t
find_notes(const char *head, size_t i, uint64_t *offset, uint64_t *bytes)
{
	const Elf64_Ehdr *e8 = (const void *)head;
	const Elf32_Ehdr *e4 = (const void *)head;
	bool wide = head[EI_CLASS] == ELFCLASS64;
	uint64_t table = wide ? e8->e_phoff : e4->e_phoff;
	size_t count = wide ? e8->e_phnum : e4->e_phnum, at;
	size_t size = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	Elf64_Phdr p8;
	Elf32_Phdr p4;

	for (; i < count; i++) {
		at = (size_t)table + i * size;
		if (table > HEAD_BYTES || at > HEAD_BYTES - size)
			return 0;
		memcpy(&p8, head + at, size);
		memcpy(&p4, head + at, sizeof p4);
		if (p4.p_type != PT_NOTE)
			continue;
		*offset = wide ? p8.p_offset : p4.p_offset;
		*bytes = wide ? p8.p_filesz : p4.p_filesz;
		return i + 1;
	}
	return 0;
}

/* How far behind an object's start its view is, 0: there is none. */
static uint64_t
find_view_note(const char *head, uint64_t at, uint64_t bytes)
{
	uint64_t end = at + bytes, name, content;
	Elf32_Nhdr note;
	int32_t distance;

	if (at > HEAD_BYTES || bytes > HEAD_BYTES || end > HEAD_BYTES)
		return 0;
	while (at + sizeof note <= end) {
		memcpy(&note, head + at, sizeof note);
		name = at + sizeof note;
		content = name + (note.n_namesz + UINT64_C(3)) / 4 * 4;
		at = content + (note.n_descsz + UINT64_C(3)) / 4 * 4;
		if (at > end)
			return 0;
		if (note.n_namesz == 4 && note.n_descsz == 4 &&
		    memcmp(head + name, "hz4", 4) == 0) {
			memcpy(&distance, head + content, sizeof distance);
			return content + (uint64_t)(int64_t)distance;
		}
	}
	return 0;
}

/* The same, from the object's first HEAD_BYTES. */
static uint64_t
find_view_in(const char *head)
{
	uint64_t offset, bytes, distance = 0;
	size_t i = 0;

	if (memcmp(head, ELFMAG, SELFMAG) != 0)
		return 0;
	while (distance == 0 &&
	       (i = find_notes(head, i, &offset, &bytes)) != 0)
		distance = find_view_note(head, offset, bytes);
	return distance;
}

/* Keep the view of the object that is mapped there, if it has one. */
static bool
look_at_object(const struct target *t, uint64_t start, struct hz4_view *view,
	       uint64_t *at)
{
	_Alignas(8) char head[HEAD_BYTES];
	uint64_t distance;

	if (!target_get(t, start, head, sizeof head))
		return false;
	distance = find_view_in(head);
	*at = start + distance;
	return distance != 0 && target_get(t, *at, view, sizeof *view) &&
	       memcmp(view->magic, HZ4_VIEW_MAGIC, sizeof view->magic) == 0;
}

/* "START-END ACCESS OFFSET ...": where an object's headers may be. */
static bool
is_object(const char *line, uint64_t *start)
{
	char *at;
	uint64_t end;

	*start = strtoull(line, &at, 16);
	if (*at != '-')
		return false;
	end = strtoull(at + 1, &at, 16);
	return end > *start && strncmp(at, " r", 2) == 0 && strlen(at) > 6 &&
	       strtoull(at + 6, NULL, 16) == 0 && strchr(line, '/') != NULL;
}

/*
 * The view of the library whose malloc is called: where there are two, a
 * static one and a preloaded one, one of them does nothing.
 */
static void
find_view(struct target *t, char *maps)
{
	struct hz4_view view = { .layout = 0 };
	uint64_t start, at;
	char *line;

	while ((line = strsep(&maps, "\n")) != NULL) {
		if (!is_object(line, &start) ||
		    !look_at_object(t, start, &view, &at))
			continue;
		t->view = view;
		t->at = at;
		if (target_number(t, &view.ready) != 0)
			break;
	}
}

bool
target_find(struct target *t, long pid)
{
	long task;
	char *maps = proc_maps(pid, &task);

	t->task = (pid_t)task;
	t->at = 0;
	if (maps != NULL)
		find_view(t, maps);
	free(maps);
	return t->at != 0 && t->view.layout == HZ4_VIEW_LAYOUT &&
	       t->view.bytes == sizeof t->view;
}

enum status
target_is_other(long pid)
{
	return complain(BAD_DATA, "process %ld runs on another version of hz4 "
			"than " PACKAGE_VERSION, pid);
}

static bool
may_read(const struct target *t)
{
	char c = 0;

	errno = 0;
	return target_get(t, 0, &c, 1) || errno != EPERM;
}

/* No view in the file of that name; false where that cannot be said. */
static bool
is_file_without(long pid, const char *name)
{
	_Alignas(8) char head[HEAD_BYTES] = "";
	char path[PATH_MAX + 64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%ld/root%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1)
		return false;
	n = read(fd, head, sizeof head);
	close(fd);
	return n >= 0 && find_view_in(head) == 0;
}

static bool
is_absent_by_files(long pid, char *maps)
{
	uint64_t start;
	char *line;

	while ((line = strsep(&maps, "\n")) != NULL)
		if (is_object(line, &start) &&
		    !is_file_without(pid, strchr(line, '/')))
			return false;
	return true;
}

bool
target_is_absent(const struct target *t, long pid)
{
	long task;
	char *maps = proc_maps(pid, &task);
	bool absent = maps != NULL && t->at == 0 &&
		      strstr(maps, "/libhz4.so") == NULL &&
		      (may_read(t) || is_absent_by_files(pid, maps));

	free(maps);
	return absent;
}

enum status
target_explain(const struct target *t, long pid)
{
	long task;
	char *maps = proc_maps(pid, &task);
	enum status status;

	if (!process_exists(pid))
		status = complain(NO_PROCESS, "no process %ld", pid);
	else if (maps == NULL)
		status = complain(DENIED, "process %ld: %s", pid,
				  strerror(EACCES));
	else if (!may_read(t))
		status = complain(DENIED, "process %ld: %s; "
				  "kernel.yama.ptrace_scope may leave this to "
				  "root", pid, strerror(errno));
	else if (!target_is_absent(t, pid))
		status = target_is_other(pid);
	else
		status = complain(FAILED, "process %ld does not run on hz4",
				  pid);
	free(maps);
	return status;
}
