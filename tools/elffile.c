/*
 * elffile.c - see elffile.h.
 *
 * Reads with pread and not through a mapping: a file that is cut meanwhile is
 * a short read, and no SIGBUS.
 */
#include "config.h"

#include "elffile.h"

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	HEADERS_MAX = 64 << 10, /* the kernel's own bound */
	INTERP_MAX = 4096,      /* the same */
	DYNAMIC_MAX = 1 << 20,
	NAME_BYTES = 255,
	TABLE_MAX = 256 << 20, /* of strings, or of symbols */
};

/* Where the file's tables are: the headers that were read so far. */
struct reader {
	int fd;
	uint64_t size;
	bool wide, big; /* 64 bits; the most significant byte first */
	uint8_t *headers;
	size_t header_count;
	uint64_t strtab, strsz, symtab; /* two addresses and a size */
};

const char *const elffile_symbols[] = {
	"malloc",
	"__asan_init",
	"__tsan_init",
	"__msan_init",
	"__lsan_init",
	"__hwasan_init",
};
const size_t elffile_symbol_count =
    sizeof elffile_symbols / sizeof *elffile_symbols;

static uint64_t
number(const struct reader *r, const uint8_t *at, size_t bytes)
{
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < bytes; i++)
		value = value << 8 | at[r->big ? i : bytes - 1 - i];
	return value;
}

/* Field `member` of the structure of `type` at `at`, in the file's form. */
#define FIELD(r, at, type, member)                                      \
	((r)->wide ? number((r), (at) + offsetof(Elf64_##type, member), \
			 sizeof((Elf64_##type *)0)->member)             \
		   : number((r), (at) + offsetof(Elf32_##type, member), \
			 sizeof((Elf32_##type *)0)->member))
#define SIZE_OF(r, type) \
	((r)->wide ? sizeof(Elf64_##type) : sizeof(Elf32_##type))

/* As many of `n` bytes at `off` as there are. */
static size_t
read_at(const struct reader *r, void *to, size_t n, uint64_t off)
{
	size_t done = 0;
	ssize_t got;

	while (done < n) {
		got = pread(
		    r->fd, (char *)to + done, n - done, (off_t)(off + done));
		if (got == 0 || (got < 0 && errno != EINTR))
			break;
		if (got > 0)
			done += (size_t)got;
	}
	return done;
}

/*
 * A copy of `n` bytes at `off`, with a 0 behind them; NULL if they are more
 * than `most` or not all there.
 */
static uint8_t *
load(const struct reader *r, uint64_t off, uint64_t n, size_t most)
{
	uint8_t *copy;

	if (n > most || off > r->size || n > r->size - off)
		return NULL;
	copy = malloc((size_t)n + 1);
	if (copy == NULL)
		return NULL;
	if (read_at(r, copy, (size_t)n, off) < n) {
		free(copy);
		return NULL;
	}
	copy[n] = '\0';
	return copy;
}

/* A copy of a name from the file that may be printed; NULL without memory. */
static char *
name_of(const uint8_t *at, size_t most)
{
	char *name = strndup((const char *)at, most), *p;

	for (p = name; p != NULL && *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == '\177')
			*p = '?';
	return name;
}

static const uint8_t *
header(const struct reader *r, size_t i)
{
	return r->headers + i * SIZE_OF(r, Phdr);
}

/* The first program header of `type`, NULL without one. */
static const uint8_t *
find_header(const struct reader *r, uint64_t type)
{
	size_t i;

	for (i = 0; i < r->header_count; i++)
		if (FIELD(r, header(r, i), Phdr, p_type) == type)
			return header(r, i);
	return NULL;
}

/*
 * Where in the file the byte is that will be at `address`: an offset within
 * the file, or false.
 */
static bool
offset_of(const struct reader *r, uint64_t address, uint64_t *off)
{
	uint64_t from, start;
	size_t i;

	for (i = 0; i < r->header_count; i++) {
		const uint8_t *h = header(r, i);

		from = FIELD(r, h, Phdr, p_vaddr);
		start = FIELD(r, h, Phdr, p_offset);
		if (FIELD(r, h, Phdr, p_type) != PT_LOAD || address < from ||
		    address - from >= FIELD(r, h, Phdr, p_filesz))
			continue;
		if (start >= r->size || address - from >= r->size - start)
			return false;
		*off = start + (address - from);
		return true;
	}
	return false;
}

/* The ELF header and the program headers. */
static bool
read_headers(
    struct elffile *f, struct reader *r, const uint8_t *start, size_t n)
{
	uint64_t type;

	if (n < EI_NIDENT ||
	    (start[EI_CLASS] != ELFCLASS32 && start[EI_CLASS] != ELFCLASS64) ||
	    (start[EI_DATA] != ELFDATA2LSB && start[EI_DATA] != ELFDATA2MSB))
		return false;
	r->wide = start[EI_CLASS] == ELFCLASS64;
	r->big = start[EI_DATA] == ELFDATA2MSB;
	if (n < SIZE_OF(r, Ehdr))
		return false;
	f->bits = r->wide ? 64 : 32;
	f->machine = (unsigned)FIELD(r, start, Ehdr, e_machine);
	type = FIELD(r, start, Ehdr, e_type);
	r->header_count = (size_t)FIELD(r, start, Ehdr, e_phnum);
	if ((type != ET_EXEC && type != ET_DYN) || r->header_count == 0 ||
	    FIELD(r, start, Ehdr, e_phentsize) != SIZE_OF(r, Phdr))
		return false;
	r->headers = load(r, FIELD(r, start, Ehdr, e_phoff),
	    r->header_count * SIZE_OF(r, Phdr), HEADERS_MAX);
	return r->headers != NULL;
}

/* The loader's name, of which the kernel wants that it ends. */
static bool
read_interp(struct elffile *f, const struct reader *r)
{
	const uint8_t *h = find_header(r, PT_INTERP);
	uint64_t n;
	uint8_t *text;

	if (h == NULL)
		return true;
	n = FIELD(r, h, Phdr, p_filesz);
	text = load(r, FIELD(r, h, Phdr, p_offset), n, INTERP_MAX);
	if (text != NULL && n >= 2 && text[n - 1] == '\0')
		f->interp = name_of(text, (size_t)n);
	free(text);
	return f->interp != NULL;
}

/*
 * Go through the dynamic section up to its end mark: what ld.so is told.
 * Fills `offsets` with where in the strings the names of needed libraries
 * start, and returns how many there are.
 */
static size_t
scan_dynamic(struct elffile *f, struct reader *r, const uint8_t *dynamic,
    size_t n, uint64_t *offsets)
{
	size_t entry = SIZE_OF(r, Dyn), i, count = 0;

	for (i = 0; i + entry <= n; i += entry) {
		uint64_t tag = FIELD(r, dynamic + i, Dyn, d_tag);
		uint64_t value = FIELD(r, dynamic + i, Dyn, d_un.d_val);

		switch (tag) {
		case DT_NULL:
			return count;
		case DT_NEEDED:
			offsets[count++] = value;
			break;
		case DT_STRTAB:
			r->strtab = value;
			break;
		case DT_STRSZ:
			r->strsz = value;
			break;
		case DT_SYMTAB:
			r->symtab = value;
			break;
		case DT_AUDIT:
		case DT_DEPAUDIT:
			f->audits = true;
			break;
		default:
			break;
		}
	}
	return count;
}

/*
 * Each name by itself: the strings of a program that exports much are
 * megabytes, of which an ordinary start needs little.
 */
static bool
read_needed(struct elffile *f, const struct reader *r, uint64_t strings,
    const uint64_t *offsets, size_t count)
{
	uint64_t left;
	uint8_t *text;
	size_t i;

	f->needed = calloc(count + 1, sizeof *f->needed);
	for (i = 0; f->needed != NULL && i < count; i++) {
		if (offsets[i] >= r->strsz)
			return false;
		left = r->strsz - offsets[i];
		text = load(r, strings + offsets[i],
		    left < NAME_BYTES ? left : NAME_BYTES, NAME_BYTES);
		if (text == NULL)
			return false;
		f->needed[i] = name_of(text, NAME_BYTES);
		free(text);
		if (f->needed[i] == NULL)
			return false;
		f->needed_count++;
	}
	return f->needed != NULL;
}

static void
find_symbols(struct elffile *f, const struct reader *r, const uint8_t *symbols,
    size_t n, const char *strings)
{
	size_t entry = SIZE_OF(r, Sym), i, k;

	for (i = 0; i + entry <= n; i += entry) {
		const uint8_t *s = symbols + i;
		uint64_t name = FIELD(r, s, Sym, st_name);

		if (name >= r->strsz || FIELD(r, s, Sym, st_shndx) == SHN_UNDEF)
			continue;
		for (k = 0; k < elffile_symbol_count; k++)
			if (strcmp(strings + name, elffile_symbols[k]) == 0)
				f->defines |= 1U << k;
	}
}

/*
 * The dynamic symbols that the file defines.  How many there are is said
 * nowhere; the strings follow them.
 */
static void
read_symbols(struct elffile *f, const struct reader *r, uint64_t end)
{
	uint8_t *symbols = NULL, *strings = NULL;
	uint64_t start;

	if (offset_of(r, r->symtab, &start) && start < end) {
		symbols = load(r, start, end - start, TABLE_MAX);
		strings = load(r, end, r->strsz, TABLE_MAX);
	}
	f->symbols_unread = symbols == NULL || strings == NULL;
	if (!f->symbols_unread)
		find_symbols(f, r, symbols, (size_t)(end - start),
		    (const char *)strings);
	free(strings);
	free(symbols);
}

/* What ld.so reads of a program that has a loader. */
static bool
read_dynamic(struct elffile *f, struct reader *r, bool symbols)
{
	const uint8_t *h = find_header(r, PT_DYNAMIC);
	uint64_t n, strings, *offsets;
	uint8_t *dynamic = NULL;
	bool good = false;

	if (h == NULL)
		return false;
	n = FIELD(r, h, Phdr, p_filesz);
	dynamic = load(r, FIELD(r, h, Phdr, p_offset), n, DYNAMIC_MAX);
	if (dynamic == NULL)
		return false;
	offsets = calloc((size_t)n / SIZE_OF(r, Dyn) + 1, sizeof *offsets);
	if (offsets != NULL) {
		size_t count = scan_dynamic(f, r, dynamic, (size_t)n, offsets);

		good = offset_of(r, r->strtab, &strings) &&
		    r->strsz <= r->size - strings &&
		    read_needed(f, r, strings, offsets, count);
	}
	if (good && symbols)
		read_symbols(f, r, strings);
	free(offsets);
	free(dynamic);
	return good;
}

/*
 * Whether a file without a loader is a shared library.  A linker marks static
 * programs that can lie anywhere; those of older ones have a start, and need
 * no library.
 */
static bool
is_library(const struct reader *r, const uint8_t *start)
{
	const uint8_t *h = find_header(r, PT_DYNAMIC);
	bool library = FIELD(r, start, Ehdr, e_entry) == 0;
	size_t entry = SIZE_OF(r, Dyn);
	uint64_t n, i, tag;
	uint8_t *dynamic;

	if (FIELD(r, start, Ehdr, e_type) != ET_DYN || h == NULL)
		return false;
	n = FIELD(r, h, Phdr, p_filesz);
	dynamic = load(r, FIELD(r, h, Phdr, p_offset), n, DYNAMIC_MAX);
	for (i = 0; dynamic != NULL && i + entry <= n; i += entry) {
		tag = FIELD(r, dynamic + i, Dyn, d_tag);
		if (tag == DT_NULL)
			break;
		if (tag == DT_NEEDED || tag == DT_SONAME)
			library = true;
		if (tag == DT_FLAGS_1 &&
		    (FIELD(r, dynamic + i, Dyn, d_un.d_val) & DF_1_PIE) != 0) {
			library = false;
			break;
		}
	}
	library = library && dynamic != NULL;
	free(dynamic);
	return library;
}

static bool
read_program(struct elffile *f, struct reader *r, const uint8_t *start,
    size_t n, bool symbols)
{
	if (!read_headers(f, r, start, n) || !read_interp(f, r))
		return false;
	if (f->interp != NULL)
		return read_dynamic(f, r, symbols);
	f->library = is_library(r, start);
	return true;
}

void
elffile_read(struct elffile *f, int fd, bool symbols)
{
	struct reader r = { .fd = fd };
	uint8_t start[ELFFILE_LINE_BYTES + 1];
	struct stat info;
	size_t n;

	memset(f, 0, sizeof *f);
	f->kind = ELFFILE_BROKEN;
	if (fstat(fd, &info) != 0 || info.st_size < 0)
		return;
	r.size = (uint64_t)info.st_size;
	n = read_at(&r, start, ELFFILE_LINE_BYTES, 0);
	start[n] = '\0';
	if (n >= 2 && memcmp(start, "#!", 2) == 0) {
		f->kind = ELFFILE_SCRIPT;
		start[strcspn((char *)start, "\n")] = '\0';
		memcpy(f->line, start + 2, strlen((char *)start + 2) + 1);
	} else if (n >= SELFMAG && memcmp(start, ELFMAG, SELFMAG) == 0) {
		if (read_program(f, &r, start, n, symbols))
			f->kind = ELFFILE_PROGRAM;
		free(r.headers);
	} else {
		if (n > sizeof(Elf64_Ehdr))
			n = sizeof(Elf64_Ehdr);
		f->kind = memchr(start, '\0', n) != NULL ? ELFFILE_DATA
							 : ELFFILE_TEXT;
	}
}

void
elffile_free(struct elffile *f)
{
	size_t i;

	for (i = 0; i < f->needed_count; i++)
		free(f->needed[i]);
	free(f->needed);
	free(f->interp);
	f->interp = NULL;
	f->needed = NULL;
	f->needed_count = 0;
}
