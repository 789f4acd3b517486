/*
 * elffile.h: what it says of good files, and that no broken one leads it
 * astray.
 */
#include "unit.h"

#include "../tools/elffile.h"
#include "small_elf.h"

#include <limits.h>
#include <sys/mman.h>

static struct elffile found;

static void
look(const void *bytes, size_t n, bool symbols)
{
	int fd = memfd_create("test_elffile", MFD_CLOEXEC);

	unit_need(fd >= 0, "%s", strerror(errno));
	unit_need(write(fd, bytes, n) == (ssize_t)n, "%s", strerror(errno));
	elffile_free(&found);
	elffile_read(&found, fd, symbols);
	close(fd);
}

static void
look_at(const struct small_elf *e)
{
	look(e->bytes, e->size, true);
}

static bool
printable(const char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < ' ' || *s == '\177')
			return false;
	return true;
}

/* What holds for any file. */
static void
need_sane(void)
{
	size_t i;

	unit_need(found.interp == NULL ||
		(printable(found.interp) && strlen(found.interp) < PATH_MAX),
	    "%s", found.interp);
	for (i = 0; i < found.needed_count; i++)
		unit_need(printable(found.needed[i]) &&
			strlen(found.needed[i]) <= 255,
		    "%s", found.needed[i]);
	if (found.kind == ELFFILE_PROGRAM)
		unit_need(
		    found.bits == 32 || found.bits == 64, "%u", found.bits);
}

static void
need_kind(enum elffile_kind kind, const char *what)
{
	unit_need(found.kind == kind, "%s: %d, not %d", what, (int)found.kind,
	    (int)kind);
	need_sane();
}

/* In each of the four forms. */
#define in_all_forms(e)         \
	for (unsigned form = 0; \
	     form < 4 && (small_make(e, form & 1, form >> 1), true); form++)

START_TEST(all_of_a_program)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "as made");
		ck_assert_uint_eq(found.bits, e.wide ? 64 : 32);
		ck_assert_uint_eq(found.machine, EM_RISCV);
		ck_assert_str_eq(found.interp, SMALL_INTERP);
		ck_assert_uint_eq(found.needed_count, 2);
		ck_assert_str_eq(found.needed[0], "libone.so.1");
		ck_assert_str_eq(found.needed[1], "libtwo.so");
		ck_assert(!found.audits && !found.symbols_unread);
		ck_assert(!found.library);
		ck_assert_uint_eq(found.defines, 0);
	}
}
END_TEST

START_TEST(symbols_of_its_own)
{
	struct small_elf e;

	ck_assert_str_eq(elffile_symbols[0], "malloc");
	in_all_forms(&e)
	{
		small_set_symbol(&e, 2, SMALL_MALLOC, 7);
		look_at(&e);
		ck_assert_uint_eq(found.defines, 1);
		small_set_symbol(&e, 3, SMALL_ASAN, 7);
		look_at(&e);
		ck_assert_uint_eq(found.defines, 1 | 1 << 1);
		look(e.bytes, e.size, false);
		need_kind(ELFFILE_PROGRAM, "without symbols");
		ck_assert_uint_eq(found.defines, 0);
		/* Names that are none. */
		small_set_symbol(&e, 2, sizeof small_strings, 7);
		small_set_symbol(&e, 3, UINT32_MAX, 7);
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "wild names");
		ck_assert_uint_eq(found.defines, 0);
	}
}
END_TEST

START_TEST(symbols_out_of_reach)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		small_set_entry(&e, 4, DT_SYMTAB, SMALL_BASE + e.strings);
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "strings first");
		ck_assert(found.symbols_unread);
		small_set_entry(&e, 4, DT_SYMTAB, 0);
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "in no segment");
		ck_assert(found.symbols_unread);
	}
}
END_TEST

START_TEST(without_a_loader)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		small_set_header(&e, 1, PT_NULL, 0, 0);
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "static");
		ck_assert_ptr_null(found.interp);
		ck_assert_uint_eq(found.needed_count, 0);
	}
}
END_TEST

/* Neither has a loader. */
START_TEST(library_or_static)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		small_set_header(&e, 1, PT_NULL, 0, 0);
		look_at(&e);
		ck_assert(found.library);
		SMALL_PUT(&e, 0, Ehdr, e_type, ET_EXEC);
		look_at(&e);
		ck_assert(!found.library);
		SMALL_PUT(&e, 0, Ehdr, e_type, ET_DYN);
		SMALL_PUT(&e, 0, Ehdr, e_entry, SMALL_BASE);
		look_at(&e);
		ck_assert(found.library);
		small_set_entry(&e, 1, DT_FLAGS_1, DF_1_PIE | DF_1_NOW);
		look_at(&e);
		ck_assert(!found.library);
		/* Without that mark: what it needs, its name, its start. */
		small_set_entry(&e, 1, DT_SONAME, SMALL_TWO);
		small_set_entry(&e, 0, DT_FLAGS_1, DF_1_NOW);
		look_at(&e);
		ck_assert(found.library);
		small_set_entry(&e, 1, DT_SYMBOLIC, 0);
		look_at(&e);
		ck_assert(!found.library);
		SMALL_PUT(&e, 0, Ehdr, e_entry, 0);
		look_at(&e);
		ck_assert(found.library);
		/* The kernel does not mind that there is none. */
		small_set_header(&e, 2, PT_DYNAMIC, e.size, 1);
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "no dynamic section");
		ck_assert(!found.library);
	}
}
END_TEST

START_TEST(auditing_libraries)
{
	static const uint32_t tag[] = { DT_AUDIT, DT_DEPAUDIT };
	struct small_elf e;
	size_t i;

	in_all_forms(&e)
	{
		for (i = 0; i < 2; i++) {
			small_set_entry(&e, 1, tag[i], SMALL_TWO);
			look_at(&e);
			need_kind(ELFFILE_PROGRAM, "audits");
			ck_assert(found.audits);
			ck_assert_uint_eq(found.needed_count, 1);
		}
		/* ld.so stops at the end mark, too. */
		small_make(&e, e.wide, e.big);
		small_set_entry(&e, 4, DT_NULL, 0);
		small_set_entry(&e, 5, DT_AUDIT, SMALL_TWO);
		look_at(&e);
		ck_assert(!found.audits);
	}
}
END_TEST

START_TEST(names_for_a_terminal)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		e.bytes[e.interp + 1] = '\033';
		e.bytes[e.strings + SMALL_ONE] = '\n';
		e.bytes[e.strings + SMALL_TWO] = '\177';
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "control characters");
		ck_assert_str_eq(found.interp, "/?ib/ld-small.so.1");
		ck_assert_str_eq(found.needed[0], "?ibone.so.1");
		ck_assert_str_eq(found.needed[1], "?ibtwo.so");
	}
}
END_TEST

/* Its strings are the last of the file: no part of it is a program. */
START_TEST(cut)
{
	struct small_elf e;
	size_t n;

	in_all_forms(&e)
	{
		for (n = 0; n < e.size; n++) {
			look(e.bytes, n, true);
			need_kind(
			    n < SELFMAG ? ELFFILE_TEXT : ELFFILE_BROKEN, "cut");
		}
	}
}
END_TEST

#define need_broken(e, type, at, member, value)                \
	do {                                                   \
		struct small_elf spoilt = *(e);                \
                                                               \
		SMALL_PUT(&spoilt, at, type, member, value);   \
		look_at(&spoilt);                              \
		need_kind(ELFFILE_BROKEN, #member " " #value); \
	} while (0)

START_TEST(what_the_kernel_refuses)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		size_t interp = small_header(&e, 1);

		need_broken(&e, Ehdr, 0, e_type, ET_REL);
		need_broken(&e, Ehdr, 0, e_type, ET_CORE);
		need_broken(&e, Ehdr, 0, e_phnum, 0);
		need_broken(&e, Ehdr, 0, e_phnum, UINT16_MAX);
		need_broken(&e, Ehdr, 0, e_phentsize, 0);
		need_broken(&e, Ehdr, 0, e_phentsize, UINT16_MAX);
		need_broken(&e, Ehdr, 0, e_phoff, e.size);
		need_broken(&e, Ehdr, 0, e_phoff, UINT64_MAX);
		need_broken(&e, Phdr, interp, p_filesz, 0);
		need_broken(&e, Phdr, interp, p_filesz, 1);
		need_broken(&e, Phdr, interp, p_filesz, 4097);
		need_broken(&e, Phdr, interp, p_filesz, UINT64_MAX);
		need_broken(&e, Phdr, interp, p_offset, UINT64_MAX);
		need_broken(&e, Phdr, interp, p_offset, UINT64_MAX >> 1);
		need_broken(
		    &e, Phdr, interp, p_filesz, sizeof SMALL_INTERP - 1);
		e.bytes[EI_CLASS] = 3;
		look_at(&e);
		need_kind(ELFFILE_BROKEN, "class");
		small_make(&e, e.wide, e.big);
		e.bytes[EI_DATA] = 0;
		look_at(&e);
		need_kind(ELFFILE_BROKEN, "data");
	}
}
END_TEST

/* Among them sums that overflow: UINT64_MAX and a little is a small offset. */
START_TEST(what_ld_so_would_run_into)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		size_t whole = small_header(&e, 0),
		       dynamic = small_header(&e, 2);
		size_t name = small_entry(&e, 1), table = small_entry(&e, 2);
		size_t length = small_entry(&e, 3);

		need_broken(&e, Phdr, dynamic, p_type, PT_NULL);
		need_broken(&e, Phdr, dynamic, p_offset, UINT64_MAX);
		need_broken(&e, Phdr, dynamic, p_offset, e.size);
		need_broken(&e, Phdr, dynamic, p_filesz, UINT64_MAX);
		need_broken(&e, Phdr, dynamic, p_filesz, 0);
		need_broken(&e, Phdr, whole, p_type, PT_NULL);
		need_broken(&e, Phdr, whole, p_filesz, e.strings);
		need_broken(&e, Phdr, whole, p_vaddr, UINT64_MAX);
		need_broken(&e, Phdr, whole, p_offset, e.size);
		need_broken(&e, Phdr, whole, p_offset, 0 - e.strings);
		need_broken(&e, Dyn, table, d_un.d_val, 0);
		need_broken(&e, Dyn, table, d_un.d_val, UINT64_MAX);
		need_broken(&e, Dyn, length, d_un.d_val, UINT64_MAX);
		need_broken(
		    &e, Dyn, length, d_un.d_val, sizeof small_strings + 1);
		need_broken(&e, Dyn, length, d_un.d_val, SMALL_TWO);
		need_broken(&e, Dyn, name, d_un.d_val, sizeof small_strings);
		need_broken(&e, Dyn, name, d_un.d_val, UINT64_MAX);
		/* With room behind the strings for the longest name. */
		e.size += 300;
		need_broken(&e, Dyn, length, d_un.d_val,
			    sizeof small_strings + 301);
	}
}
END_TEST

/* An address whose place in the file, as a sum that wraps, is the strings'. */
START_TEST(address_that_wraps)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		size_t whole = small_header(&e, 0);

		SMALL_PUT(&e, whole, Phdr, p_offset, e.strings + 2);
		SMALL_PUT(&e, whole, Phdr, p_vaddr, 0);
		SMALL_PUT(&e, whole, Phdr, p_filesz, UINT64_MAX);
		small_set_entry(&e, 2, DT_STRTAB, UINT64_MAX - 1);
		look_at(&e);
		need_kind(ELFFILE_BROKEN, "wraps");
	}
}
END_TEST

/* A name that does not end in the strings ends with them, at most. */
START_TEST(name_without_an_end)
{
	struct small_elf e;

	in_all_forms(&e)
	{
		memset(e.bytes + e.strings + 1, 'x', sizeof small_strings - 1);
		look_at(&e);
		need_kind(ELFFILE_PROGRAM, "no end");
		ck_assert_uint_eq(
		    strlen(found.needed[0]), sizeof small_strings - 1);
	}
}
END_TEST

/* Every byte with some values, then many at once. */
START_TEST(garbled)
{
	static const uint8_t value[] = { 0, 1, 0x7f, 0x80, 0xff };
	struct small_elf e, spoilt;
	uint64_t seed = 1;
	size_t at, i, k;

	in_all_forms(&e)
	{
		for (at = 0; at < e.size; at++)
			for (i = 0; i < sizeof value; i++) {
				spoilt = e;
				spoilt.bytes[at] = value[i];
				look_at(&spoilt);
				need_sane();
			}
		for (i = 0; i < 3000; i++) {
			spoilt = e;
			for (k = 1 + unit_below(&seed, 12); k > 0; k--) {
				at = unit_below(&seed, e.size);
				spoilt.bytes[at] = (uint8_t)unit_random(&seed);
			}
			look_at(&spoilt);
			need_sane();
		}
	}
}
END_TEST

START_TEST(no_elf)
{
	char text[400];

	look("", 0, true);
	need_kind(ELFFILE_TEXT, "empty");
	look("echo", 4, true);
	need_kind(ELFFILE_TEXT, "text");
	look("a\0b", 3, true);
	need_kind(ELFFILE_DATA, "data");
	look("#! /bin/sh -x\necho", 18, true);
	need_kind(ELFFILE_SCRIPT, "script");
	ck_assert_str_eq(found.line, " /bin/sh -x");
	look("#!", 2, true);
	need_kind(ELFFILE_SCRIPT, "nothing to run it");
	ck_assert_str_eq(found.line, "");
	/* A shell looks for a NUL in the first line, at the most. */
	memset(text, 'x', sizeof text);
	text[300] = '\0';
	look(text, sizeof text, true);
	need_kind(ELFFILE_TEXT, "a NUL far behind");
	memcpy(text, "#!", 2);
	look(text, sizeof text, true);
	need_kind(ELFFILE_SCRIPT, "a long line");
	ck_assert_uint_eq(strlen(found.line), ELFFILE_LINE_BYTES - 2);
}
END_TEST

START_TEST(cannot_be_read)
{
	elffile_read(&found, -1, true);
	need_kind(ELFFILE_BROKEN, "no file");
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, all_of_a_program);
	tcase_add_test(t, symbols_of_its_own);
	tcase_add_test(t, symbols_out_of_reach);
	tcase_add_test(t, without_a_loader);
	tcase_add_test(t, library_or_static);
	tcase_add_test(t, auditing_libraries);
	tcase_add_test(t, names_for_a_terminal);
	tcase_add_test(t, cut);
	tcase_add_test(t, what_the_kernel_refuses);
	tcase_add_test(t, what_ld_so_would_run_into);
	tcase_add_test(t, address_that_wraps);
	tcase_add_test(t, name_without_an_end);
	tcase_add_test(t, garbled);
	tcase_add_test(t, no_elf);
	tcase_add_test(t, cannot_be_read);
}

int
main(void)
{
	return unit_main("elffile", add);
}
