/*
 * fuzz_elf.c - any bytes as the file of a program that hz4-inspect looks
 * into.  AddressSanitizer sees reads beyond what was loaded; here is what
 * holds for the answers: they come from the file, may be printed, and do not
 * depend on whether symbols are asked for.
 *
 * HZ4_FUZZ_SEEDS=DIRECTORY writes files to start from there: a good one in
 * each of ELF's forms, and others that are broken in ways of their own.
 */
#include "fuzz.h"

#include "../../tools/elffile.h"
#include "../small_elf.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);

static void
write_seed(const struct small_elf *e, const char *name, size_t size)
{
	const char *form = e->wide ? e->big ? "64_big" : "64"
	    : e->big               ? "32_big"
				   : "32";
	char path[4096];
	FILE *out;

	snprintf(path, sizeof path, "%s/%s_%s", getenv("HZ4_FUZZ_SEEDS"), name,
	    form);
	out = fopen(path, "wb");
	need(out != NULL && fwrite(e->bytes, 1, size, out) == size &&
		fclose(out) == 0,
	    "%s", path);
}

static void
write_seeds(bool wide, bool big)
{
	struct small_elf e;

	small_make(&e, wide, big);
	write_seed(&e, "good", e.size);
	write_seed(&e, "cut", e.size - sizeof small_strings / 2);
	small_set_symbol(&e, 2, SMALL_MALLOC, 1);
	small_set_symbol(&e, 3, SMALL_ASAN, 1);
	write_seed(&e, "symbols", e.size);
	small_set_entry(&e, 3, DT_STRSZ, UINT32_MAX);
	write_seed(&e, "strings", e.size);
	small_make(&e, wide, big);
	small_set_entry(&e, 4, DT_SYMTAB, SMALL_BASE);
	small_set_entry(&e, 1, DT_AUDIT, SMALL_TWO);
	write_seed(&e, "audits", e.size);
	small_set_header(&e, 1, PT_NULL, 0, 0);
	write_seed(&e, "static", e.size);
	small_make(&e, wide, big);
	SMALL_PUT(&e, small_header(&e, 0), Phdr, p_offset, 0 - e.strings);
	write_seed(&e, "overflow", e.size);
	small_make(&e, wide, big);
	SMALL_PUT(&e, 0, Ehdr, e_phnum, UINT16_MAX);
	write_seed(&e, "headers", e.size);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	unsigned form;

	(void)argc;
	(void)argv;
	if (getenv("HZ4_FUZZ_SEEDS") == NULL)
		return 0;
	for (form = 0; form < 4; form++)
		write_seeds(form & 1, form >> 1);
	exit(0);
}

/* Whether these bytes are `name`, but for some that were made a '?'. */
static bool
is_name(const uint8_t *at, const char *name)
{
	for (; *name != '\0'; name++, at++)
		if (*at != (uint8_t)*name &&
		    (*name != '?' || (*at >= ' ' && *at != 127)))
			return false;
	return true;
}

static void
need_from(const uint8_t *data, size_t size, const char *name, size_t most)
{
	size_t n = strlen(name), i;

	need(n <= most, "%zu bytes", n);
	for (i = 0; i + n <= size; i++)
		if (is_name(data + i, name))
			break;
	need(i + n <= size, "\"%s\" is not in the file", name);
	for (i = 0; i < n; i++)
		need((uint8_t)name[i] >= ' ' && name[i] != 127, "\"%s\"", name);
}

static void
need_kind(const uint8_t *data, size_t size, const struct elffile *f)
{
	bool elf = size >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
	bool script = size >= 2 && memcmp(data, "#!", 2) == 0;

	need((f->kind == ELFFILE_SCRIPT) == script, "%d", f->kind);
	need((f->kind == ELFFILE_PROGRAM || f->kind == ELFFILE_BROKEN) == elf,
	    "%d", f->kind);
	if (f->kind != ELFFILE_PROGRAM)
		return;
	need(
	    f->bits == (data[EI_CLASS] == ELFCLASS64 ? 64 : 32), "%u", f->bits);
	need(f->interp != NULL || (f->needed_count == 0 && !f->audits),
	    "static, with libraries");
	need(f->interp == NULL || !f->library, "a library with a loader");
	need(f->defines >> elffile_symbol_count == 0, "%x", f->defines);
}

static void
need_same(const struct elffile *with, const struct elffile *without)
{
	size_t i;

	need(with->kind == without->kind && with->bits == without->bits &&
		with->machine == without->machine &&
		with->library == without->library &&
		with->audits == without->audits,
	    "kind %d and %d", with->kind, without->kind);
	need(without->defines == 0 && !without->symbols_unread, "%x",
	    without->defines);
	need(with->needed_count == without->needed_count, "%zu and %zu",
	    with->needed_count, without->needed_count);
	for (i = 0; i < with->needed_count; i++)
		need(strcmp(with->needed[i], without->needed[i]) == 0, "%s",
		    with->needed[i]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct elffile f, plain;
	size_t i;

	if (fd < 0)
		fd = memfd_create("fuzz_elf", MFD_CLOEXEC);
	need(
	    ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size,
	    "%zu bytes", size);
	elffile_read(&f, fd, true);
	elffile_read(&plain, fd, false);
	need_kind(data, size, &f);
	need_same(&f, &plain);
	if (f.interp != NULL)
		need_from(data, size, f.interp, 4095);
	for (i = 0; i < f.needed_count; i++)
		need_from(data, size, f.needed[i], 255);
	elffile_free(&f);
	elffile_free(&plain);
	return 0;
}
