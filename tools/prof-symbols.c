/*
 * prof-symbols.c - from an address to functions, files and lines, by
 * elfutils' libdw: from the objects that were mapped, their separate debugging
 * information, and debuginfod where that is set up.
 */
#include "config.h"

#include "prof.h"

#include <dlfcn.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct known {
	uint64_t address;
	struct place_list places;
};

struct symbols {
	Dwfl *dwfl;
	struct mapping *mapping;
	size_t mappings;
	struct known **known; /* a table, by address */
	size_t size, used;
};

static char *debug_path;

/* Of the process, below which its objects are.  One profile has one. */
static const char *objects_root = "";

/* As elfutils' own, but below that root if the object is there. */
static int
find_object(Dwfl_Module *module, void **data, const char *name,
	    Dwarf_Addr base, char **file, Elf **elf)
{
	char *path = NULL;
	int fd = -1;

	if (*objects_root != '\0' && *name == '/' &&
	    asprintf(&path, "%s%s", objects_root, name) > 0)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1) {
		free(path);
		return dwfl_linux_proc_find_elf(module, data, name, base,
						file, elf);
	}
	*file = path;
	return fd;
}

static const Dwfl_Callbacks callbacks = {
	.find_elf = find_object,
	.find_debuginfo = dwfl_standard_find_debuginfo,
	.debuginfo_path = &debug_path,
};

/* --- mappings -------------------------------------------------------- */

/* "START-END ACCESS OFFSET DEVICE INODE  PATH"; cuts it. */
static void
add_mapping(struct symbols *s, char *line)
{
	struct mapping m = { 0, 0, 0, NULL, "", false };
	char *word[5], *end;
	int i;

	for (i = 0; i < 5; i++) {
		word[i] = strsep(&line, " ");
		if (word[i] == NULL)
			return;
	}
	m.start = strtoull(word[0], &end, 16);
	if (end == word[0] || *end != '-' || strchr(word[1], 'x') == NULL)
		return;
	m.end = strtoull(end + 1, NULL, 16);
	m.offset = strtoull(word[2], NULL, 16);
	m.path = need(strdup(line != NULL ? line + strspn(line, " ") : ""));
	s->mapping = need(realloc(s->mapping, (s->mappings + 1) *
						      sizeof *s->mapping));
	s->mapping[s->mappings++] = m;
}

static void
read_mappings(struct symbols *s, const char *maps)
{
	char *text = need(strdup(maps)), *line, *rest = text;

	while ((line = strsep(&rest, "\n")) != NULL)
		if (*line != '\0')
			add_mapping(s, line);
	free(text);
}

static void
find_build_id(struct symbols *s, struct mapping *m)
{
	Dwfl_Module *module = dwfl_addrmodule(s->dwfl, m->start);
	const unsigned char *bits = NULL;
	char *to = m->build_id;
	GElf_Addr where, bias;
	int n, i;

	if (module == NULL ||
	    dwfl_module_getelf(module, &bias) == NULL)
		return;
	n = dwfl_module_build_id(module, &bits, &where);
	for (i = 0; i < n && i < 32; i++)
		to += sprintf(to, "%02x", bits[i]);
}

const struct mapping *
symbols_mappings(struct symbols *s, size_t *n)
{
	*n = s->mappings;
	return s->mapping;
}

const struct mapping *
symbols_mapping(struct symbols *s, uint64_t address, size_t *number)
{
	size_t i;

	for (i = 0; i < s->mappings; i++) {
		if (address < s->mapping[i].start ||
		    address >= s->mapping[i].end)
			continue;
		*number = i;
		return &s->mapping[i];
	}
	return NULL;
}

struct symbols *
symbols_open(const char *maps, const char *root)
{
	struct symbols *s = need(calloc(1, sizeof *s));
	FILE *f;
	size_t i;

	objects_root = root;
	read_mappings(s, maps);
	s->size = 1024;
	s->known = need(calloc(s->size, sizeof(struct known *)));
	s->dwfl = need(dwfl_begin(&callbacks));
	dwfl_report_begin(s->dwfl);
	f = *maps != '\0' ? fmemopen((void *)(uintptr_t)maps, strlen(maps),
				     "r") : NULL;
	if (f != NULL) {
		(void)dwfl_linux_proc_maps_report(s->dwfl, f);
		fclose(f);
	}
	dwfl_report_end(s->dwfl, NULL, NULL);
	for (i = 0; i < s->mappings; i++) {
		find_build_id(s, &s->mapping[i]);
		progress("objects", i + 1, s->mappings);
	}
	return s;
}

/* --- names ----------------------------------------------------------- */

typedef char *demangler(const char *name, char *to, size_t *size, int *status);

/* libstdc++'s, if there is one: who profiles C++ has it. */
static const char *
demangled(const char *name)
{
	static union {
		void *address;
		demangler *code;
	} f;
	static bool looked;
	void *library;
	char *plain = NULL;
	int status;

	if (name[0] != '_' || name[1] != 'Z')
		return name;
	if (!looked) {
		looked = true;
		library = dlopen("libstdc++.so.6", RTLD_NOW);
		if (library != NULL)
			f.address = dlsym(library, "__cxa_demangle");
	}
	if (f.code != NULL)
		plain = f.code(name, NULL, NULL, &status);
	return plain != NULL ? plain : name;
}

static void
add_place(struct place_list *to, const char *function, const char *file,
	  int line)
{
	to->place = need(realloc(to->place, (to->n + 1) * sizeof *to->place));
	to->place[to->n++] = (struct place){ function, file, line };
}

static const char *
name_of(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	const char *name = NULL;

	if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute) != NULL)
		name = dwarf_formstring(&attribute);
	if (name != NULL)
		name = demangled(name);
	/* Without a demangler the short name is easier to read. */
	if (name == NULL || strncmp(name, "_Z", 2) == 0)
		name = dwarf_diename(die);
	return name != NULL ? name : "(anonymous)";
}

/* Where an inlined call was made. */
static void
find_call(Dwarf_Die *cu, Dwarf_Die *die, const char **file, int *line)
{
	Dwarf_Attribute attribute;
	Dwarf_Files *files;
	Dwarf_Word number = 0;
	size_t n;

	*file = NULL;
	*line = 0;
	if (dwarf_formudata(dwarf_attr(die, DW_AT_call_line, &attribute),
			    &number) == 0)
		*line = (int)number;
	if (dwarf_formudata(dwarf_attr(die, DW_AT_call_file, &attribute),
			    &number) == 0 &&
	    dwarf_getsrcfiles(cu, &files, &n) == 0 && number < n)
		*file = dwarf_filesrc(files, number, NULL, NULL);
}

/* The function at an address and those that it is inlined into. */
static void
add_scopes(struct place_list *to, Dwarf_Die *cu, Dwarf_Addr pc,
	   const char *file, int line)
{
	Dwarf_Die *scopes = NULL, *chain = NULL;
	int n = 0, i;

	if (dwarf_getscopes(cu, pc, &scopes) > 0)
		n = dwarf_getscopes_die(&scopes[0], &chain);
	for (i = 0; i < n; i++) {
		int tag = dwarf_tag(&chain[i]);

		if (tag != DW_TAG_inlined_subroutine &&
		    tag != DW_TAG_subprogram)
			continue;
		add_place(to, name_of(&chain[i]), file, line);
		if (tag == DW_TAG_subprogram)
			break;
		find_call(cu, &chain[i], &file, &line);
	}
	free(scopes);
	free(chain);
}

/* "libx.so+0x1234" for what has no name. */
static const char *
bare_name(struct symbols *s, uint64_t address)
{
	size_t number;
	const struct mapping *m = symbols_mapping(s, address, &number);
	const char *base = NULL;
	char text[300];

	if (m != NULL) {
		base = strrchr(m->path, '/');
		s->mapping[number].nameless = true;
	}
	if (base != NULL)
		snprintf(text, sizeof text, "%.250s+0x%" PRIx64, base + 1,
			 address - m->start + m->offset);
	else
		snprintf(text, sizeof text, "0x%" PRIx64, address);
	return need(strdup(text));
}

static void
find_places(struct symbols *s, uint64_t address, struct place_list *to)
{
	Dwfl_Module *module = dwfl_addrmodule(s->dwfl, address);
	const char *file = NULL, *name = NULL;
	Dwarf_Addr bias = 0;
	Dwarf_Die *cu;
	Dwfl_Line *line;
	int number = 0;

	if (module != NULL) {
		line = dwfl_module_getsrc(module, address);
		if (line != NULL)
			file = dwfl_lineinfo(line, NULL, &number, NULL, NULL,
					     NULL);
		cu = dwfl_module_addrdie(module, address, &bias);
		if (cu != NULL)
			add_scopes(to, cu, address - bias, file, number);
		name = dwfl_module_addrname(module, address);
	}
	if (to->n == 0)
		add_place(to, name != NULL ? demangled(name) :
					     bare_name(s, address),
			  file, number);
}

static struct known **
slot_of(struct symbols *s, uint64_t address)
{
	size_t i = (size_t)(address * UINT64_C(0x9e3779b97f4a7c15) >> 20);

	while (s->known[i % s->size] != NULL &&
	       s->known[i % s->size]->address != address)
		i++;
	return &s->known[i % s->size];
}

static void
make_room(struct symbols *s)
{
	struct known **old = s->known;
	size_t size = s->size, i;

	if (++s->used * 2 < size)
		return;
	s->size *= 2;
	s->known = need(calloc(s->size, sizeof(struct known *)));
	for (i = 0; i < size; i++)
		if (old[i] != NULL)
			*slot_of(s, old[i]->address) = old[i];
	free(old);
}

/* A return address lies behind its call. */
const struct place_list *
symbols_find(struct symbols *s, uint64_t address)
{
	struct known **slot = slot_of(s, address), *k = *slot;

	if (k != NULL)
		return &k->places;
	k = need(calloc(1, sizeof *k));
	k->address = address;
	find_places(s, address - 1, &k->places);
	make_room(s);
	*slot_of(s, address) = k;
	return &k->places;
}
