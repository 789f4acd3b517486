/*
 * elffile.h - what the headers of a program's file say about it.
 *
 * Nothing in the file is trusted: every offset and length is held against
 * the file's size before bytes are read, and all that is kept is a copy.
 */
#ifndef HZ4_ELFFILE_H
#define HZ4_ELFFILE_H

#include <stdbool.h>
#include <stddef.h>

enum elffile_kind {
	ELFFILE_TEXT,   /* none of these */
	ELFFILE_DATA,   /* the same, but with a NUL, so for no shell */
	ELFFILE_SCRIPT, /* starts with #! */
	ELFFILE_BROKEN, /* ELF, but the kernel or ld.so would refuse it */
	ELFFILE_PROGRAM,
};

enum { ELFFILE_LINE_BYTES = 256 }; /* as much as the kernel looks at */

struct elffile {
	enum elffile_kind kind;

	/* A script's first line, without #!. */
	char line[ELFFILE_LINE_BYTES];

	/*
	 * A program's.  In strings that it names each byte that could disturb
	 * a terminal is a '?'.
	 */
	unsigned bits;    /* 32 or 64 */
	unsigned machine; /* EM_... of <elf.h> */
	char *interp;     /* its loader; NULL in a static program */
	bool library;     /* no loader, and not static: for programs to load */
	char **needed;    /* the libraries that it names itself */
	size_t needed_count;
	bool audits; /* names libraries that ld.so runs before all others */
	bool symbols_unread; /* `defines` is not known */
	unsigned defines;    /* bit i: elffile_symbols[i] is its own */
};

/* Names of allocators and of sanitizers; the first is "malloc". */
extern const char *const elffile_symbols[];
extern const size_t elffile_symbol_count;

/*
 * Look at the file that is open as `fd`; at its symbols only if `symbols`.
 * Where it cannot be read, or memory is short, it is ELFFILE_BROKEN.
 */
void elffile_read(struct elffile *f, int fd, bool symbols);
void elffile_free(struct elffile *f);

#endif
