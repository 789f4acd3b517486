/*
 * small_elf.h - the smallest file that has all that elffile.h looks at, in
 * any of ELF's four forms, for tests to spoil.
 */
#ifndef HZ4_SMALL_ELF_H
#define HZ4_SMALL_ELF_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	SMALL_BYTES = 1024, /* more than any of them has */
	SMALL_BASE = 0x10000,
	SMALL_HEADERS = 3, /* LOAD, INTERP, DYNAMIC */
	SMALL_ENTRIES = 6, /* of the dynamic section, see small_make() */
	SMALL_SYMBOLS = 4,
};

#define SMALL_INTERP "/lib/ld-small.so.1"

/* Where a name starts in the strings: a linker shares ends. */
static const char small_strings[] =
    "\0libone.so.1\0libtwo.so\0xmalloc\0__asan_init\0";
enum {
	SMALL_ONE = 1,
	SMALL_TWO = 13,
	SMALL_XMALLOC = 23,
	SMALL_MALLOC = 24,
	SMALL_ASAN = 31,
};

struct small_elf {
	bool wide, big; /* 64 bits; the most significant byte first */
	uint8_t bytes[SMALL_BYTES];
	size_t size, headers, interp, dynamic, symbols, strings;
};

static inline void
small_put(struct small_elf *e, size_t at, size_t bytes, uint64_t value)
{
	size_t i;

	for (i = 0; i < bytes; i++)
		e->bytes[at + (e->big ? bytes - 1 - i : i)] =
		    (uint8_t)(value >> 8 * i);
}

#define SMALL_SIZE(e, type) \
	((e)->wide ? sizeof(Elf64_##type) : sizeof(Elf32_##type))
#define SMALL_PUT(e, at, type, member, value)                            \
	((e)->wide ? small_put(e, (at) + offsetof(Elf64_##type, member), \
			 sizeof((Elf64_##type *)0)->member, value)       \
		   : small_put(e, (at) + offsetof(Elf32_##type, member), \
			 sizeof((Elf32_##type *)0)->member, value))

/* Where header, entry and symbol `i` are. */
static inline size_t
small_header(const struct small_elf *e, size_t i)
{
	return e->headers + i * SMALL_SIZE(e, Phdr);
}

static inline size_t
small_entry(const struct small_elf *e, size_t i)
{
	return e->dynamic + i * SMALL_SIZE(e, Dyn);
}

static inline size_t
small_symbol(const struct small_elf *e, size_t i)
{
	return e->symbols + i * SMALL_SIZE(e, Sym);
}

static inline void
small_set_header(
    struct small_elf *e, size_t i, uint32_t type, size_t off, size_t n)
{
	size_t at = small_header(e, i);

	SMALL_PUT(e, at, Phdr, p_type, type);
	SMALL_PUT(e, at, Phdr, p_offset, off);
	SMALL_PUT(e, at, Phdr, p_vaddr, SMALL_BASE + off);
	SMALL_PUT(e, at, Phdr, p_filesz, n);
}

static inline void
small_set_entry(struct small_elf *e, size_t i, uint64_t tag, uint64_t value)
{
	SMALL_PUT(e, small_entry(e, i), Dyn, d_tag, tag);
	SMALL_PUT(e, small_entry(e, i), Dyn, d_un.d_val, value);
}

static inline void
small_set_symbol(struct small_elf *e, size_t i, size_t name, uint16_t section)
{
	SMALL_PUT(e, small_symbol(e, i), Sym, st_name, name);
	SMALL_PUT(e, small_symbol(e, i), Sym, st_shndx, section);
}

/*
 * A program that names two libraries, has xmalloc and wants malloc and
 * __asan_init of others.
 */
static inline void
small_make(struct small_elf *e, bool wide, bool big)
{
	memset(e, 0, sizeof *e);
	e->wide = wide;
	e->big = big;
	e->headers = SMALL_SIZE(e, Ehdr);
	e->interp = small_header(e, SMALL_HEADERS);
	e->dynamic = e->interp + sizeof SMALL_INTERP;
	e->symbols = small_entry(e, SMALL_ENTRIES);
	e->strings = small_symbol(e, SMALL_SYMBOLS);
	e->size = e->strings + sizeof small_strings;
	memcpy(e->bytes, ELFMAG, SELFMAG);
	e->bytes[EI_CLASS] = wide ? ELFCLASS64 : ELFCLASS32;
	e->bytes[EI_DATA] = big ? ELFDATA2MSB : ELFDATA2LSB;
	SMALL_PUT(e, 0, Ehdr, e_type, ET_DYN);
	SMALL_PUT(e, 0, Ehdr, e_machine, EM_RISCV);
	SMALL_PUT(e, 0, Ehdr, e_phoff, e->headers);
	SMALL_PUT(e, 0, Ehdr, e_phentsize, SMALL_SIZE(e, Phdr));
	SMALL_PUT(e, 0, Ehdr, e_phnum, SMALL_HEADERS);
	small_set_header(e, 0, PT_LOAD, 0, e->size);
	small_set_header(e, 1, PT_INTERP, e->interp, sizeof SMALL_INTERP);
	small_set_header(e, 2, PT_DYNAMIC, e->dynamic, e->symbols - e->dynamic);
	memcpy(e->bytes + e->interp, SMALL_INTERP, sizeof SMALL_INTERP);
	small_set_entry(e, 0, DT_NEEDED, SMALL_ONE);
	small_set_entry(e, 1, DT_NEEDED, SMALL_TWO);
	small_set_entry(e, 2, DT_STRTAB, SMALL_BASE + e->strings);
	small_set_entry(e, 3, DT_STRSZ, sizeof small_strings);
	small_set_entry(e, 4, DT_SYMTAB, SMALL_BASE + e->symbols);
	small_set_entry(e, 5, DT_NULL, 0);
	small_set_symbol(e, 1, SMALL_XMALLOC, 1);
	small_set_symbol(e, 2, SMALL_MALLOC, SHN_UNDEF);
	small_set_symbol(e, 3, SMALL_ASAN, SHN_UNDEF);
	memcpy(e->bytes + e->strings, small_strings, sizeof small_strings);
}

#endif
