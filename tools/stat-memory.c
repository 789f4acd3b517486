/*
 * stat-memory.c - the figures that every build has, read from the process's
 * memory without its help.
 *
 * The library's note leads to its view (src/view.h), and that to everything
 * else.  All of it is copied before it is looked at, every length and number
 * of rounds has a bound, and what makes no sense counts as 0: the process may
 * be changing it, or may want to deceive.  Whose memory may be read is the
 * kernel's to say.
 */
#include "config.h"

#include "stat.h"
#include "view.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum {
	HEAD_BYTES = 4096, /* of an object: its headers and notes */
	MOST_CLASSES = 256,
	MOST_SHARDS = 64,
	MOST_L1S = 65536,
	MOST_CACHES = 1 << 20,
	MOST_BYTES = 1 << 20, /* of one structure or array */
	MOST_MIB = 4096,      /* of all caches, should their list be a ring */
};

enum value {
#define HZ4_FIGURE(name, unit, text) VALUE_##name,
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	VALUES
};

enum column {
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) COLUMN_##name,
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	COLUMNS
};

static const char *const names[] = {
#define HZ4_FIGURE(name, unit, text) #name,
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) #name,
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
};

/* Sums over caches for one class. */
struct sum {
	int64_t net;
	uint64_t cached;
};

static struct {
	pid_t task;  /* whose memory it is */
	uint64_t at; /* of the view */
	struct hz4_view view;
	/* Its parts. */
	struct hz4_view_threads threads;
	struct hz4_view_l1 l1;
	struct hz4_view_meta meta;
	struct hz4_view_large large;
	struct hz4_view_samples samples;
	struct hz4_view_guards guards;
	char *buffer; /* MOST_BYTES */
	struct sum sum[MOST_CLASSES];
} memory;

/* --- copying --------------------------------------------------------- */

static bool
get(uint64_t at, void *to, size_t bytes)
{
	struct iovec here = { to, bytes };
	struct iovec there = { (void *)(uintptr_t)at, bytes };

	return process_vm_readv(memory.task, &here, 1, &there, 1, 0) ==
	       (ssize_t)bytes;
}

static uint64_t
decode(const char *at, uint32_t width)
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

/* The number `i` of a structure of `bytes` that was copied. */
static uint64_t
pick(size_t bytes, const struct hz4_view_number *n, size_t i)
{
	uint64_t at;

	if (n->at > bytes || n->stride > MOST_BYTES || i > MOST_CLASSES ||
	    n->width > 8)
		return 0;
	at = n->at + i * n->stride;
	return at + n->width <= bytes ? decode(memory.buffer + at, n->width) :
					0;
}

/* `count` numbers that lie in an array. */
static void
get_numbers(const struct hz4_view_number *from, uint64_t offset,
	    size_t count, uint64_t *to)
{
	struct hz4_view_number n = *from;
	size_t i, bytes;

	memset(to, 0, count * sizeof *to);
	if (n.stride > MOST_BYTES / MOST_CLASSES || n.width > 8 || count == 0)
		return;
	bytes = (count - 1) * n.stride + n.width;
	n.at = 0;
	if (!get(from->at + offset, memory.buffer, bytes))
		return;
	for (i = 0; i < count; i++)
		to[i] = pick(bytes, &n, i);
}

static uint64_t
get_number(const struct hz4_view_number *from)
{
	uint64_t n;

	get_numbers(from, 0, 1, &n);
	return n;
}

/* --- finding --------------------------------------------------------- */

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

/* Keep the view of the object that is mapped there, if it has one. */
static bool
look_at_object(uint64_t start, struct hz4_view *view, uint64_t *at)
{
	_Alignas(8) char head[HEAD_BYTES];
	uint64_t offset, bytes, distance = 0;
	size_t i = 0;

	if (!get(start, head, sizeof head) ||
	    memcmp(head, ELFMAG, SELFMAG) != 0)
		return false;
	while (distance == 0 &&
	       (i = find_notes(head, i, &offset, &bytes)) != 0)
		distance = find_view_note(head, offset, bytes);
	*at = start + distance;
	return distance != 0 && get(*at, view, sizeof *view) &&
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
static bool
find_view(char *maps)
{
	struct hz4_view view = { .layout = 0 };
	uint64_t start, at;
	char *line;
	bool found = false;

	while ((line = strsep(&maps, "\n")) != NULL) {
		if (!is_object(line, &start) ||
		    !look_at_object(start, &view, &at))
			continue;
		found = true;
		memory.view = view;
		memory.at = at;
		if (get_number(&view.ready) != 0)
			break;
	}
	return found;
}

static enum status
explain(int pid, const char *maps)
{
	char c = 0;

	if (!process_exists(pid))
		return complain(NO_PROCESS, "no process %d", pid);
	errno = 0;
	if (maps != NULL && !get(0, &c, 1) && errno == EPERM)
		return complain(DENIED, "process %d: %s; "
				"kernel.yama.ptrace_scope may leave this to "
				"root", pid, strerror(errno));
	if (maps == NULL)
		return complain(DENIED, "process %d: %s", pid,
				strerror(EACCES));
	if (strstr(maps, "/libhz4.so") != NULL)
		return complain(BAD_DATA, "process %d runs on another version "
				"of hz4 than " PACKAGE_VERSION, pid);
	return complain(FAILED, "process %d does not run on hz4", pid);
}

static bool
is_sound(const struct hz4_view *v)
{
	return v->layout == HZ4_VIEW_LAYOUT && v->bytes == sizeof *v &&
	       stat_is_text(v->version, sizeof v->version) &&
	       stat_is_text(v->flavour, sizeof v->flavour) &&
	       v->classes > 2 && v->classes <= MOST_CLASSES &&
	       v->cache_bytes <= MOST_BYTES && v->shard_stride <= MOST_BYTES;
}

static bool
get_parts(void)
{
	const struct hz4_view *v = &memory.view;

	return get(v->threads, &memory.threads, sizeof memory.threads) &&
	       get(v->l1, &memory.l1, sizeof memory.l1) &&
	       get(v->meta, &memory.meta, sizeof memory.meta) &&
	       get(v->large, &memory.large, sizeof memory.large) &&
	       get(v->samples, &memory.samples, sizeof memory.samples) &&
	       get(v->guards, &memory.guards, sizeof memory.guards) &&
	       memory.l1.bytes <= MOST_BYTES;
}

static bool
describe(struct figures *f)
{
	const struct hz4_view *v = &memory.view;

	f->schema = v->schema;
	memcpy(f->version, v->version, sizeof f->version);
	memcpy(f->flavour, v->flavour, sizeof f->flavour);
	f->values = VALUES;
	f->columns = COLUMNS;
	f->rows = v->classes - 1;
	f->names = calloc(VALUES + COLUMNS, sizeof *f->names);
	if (f->names != NULL)
		memcpy(f->names, names, sizeof names);
	return f->names != NULL && figures_make(f);
}

enum status
memory_open(struct figures *f)
{
	long task;
	char *maps = proc_maps(f->pid, &task), *text = maps;
	enum status status = OK;

	memory.task = (pid_t)task;
	if (memory.buffer == NULL)
		memory.buffer = need(malloc(MOST_BYTES));
	if (maps != NULL)
		text = need(strdup(maps));
	if (maps == NULL || !find_view(text))
		status = explain(f->pid, maps);
	else if (!is_sound(&memory.view) || !get_parts())
		status = complain(BAD_DATA, "process %d runs on another "
				  "version of hz4 than " PACKAGE_VERSION,
				  f->pid);
	else if (get_number(&memory.view.ready) == 0)
		status = complain(FAILED, "process %d has not allocated yet",
				  f->pid);
	else if (!describe(f))
		status = complain(FAILED, "no memory");
	if (text != maps)
		free(text);
	free(maps);
	return status;
}

/* --- sums ------------------------------------------------------------ */

static void
add_cache(void)
{
	const struct hz4_view *v = &memory.view;
	size_t bytes = (size_t)v->cache_bytes, cls;
	uint64_t top, base;

	for (cls = 1; cls < v->classes; cls++) {
		struct sum *s = &memory.sum[cls];

		s->net += (int64_t)pick(bytes, &v->cache_net, cls);
		top = pick(bytes, &v->cache_top, cls);
		base = pick(bytes, &v->cache_base, cls);
		if (base == 0)
			continue;
		base += pick(bytes, &v->cache_gone, cls) * v->cache_base.width;
		/* It may just be moving. */
		if (top > base && top - base < MOST_BYTES)
			s->cached += (top - base) / v->cache_base.width;
	}
}

static void
add_caches(void)
{
	uint64_t at = get_number(&memory.threads.caches);
	struct hz4_view_number older = memory.threads.older;
	uint64_t copied = 0;
	unsigned n;

	for (n = 0; at != 0 && n < MOST_CACHES && copied >> 20 < MOST_MIB;
	     n++) {
		if (!get(at, memory.buffer, (size_t)memory.view.cache_bytes))
			break;
		copied += memory.view.cache_bytes;
		add_cache();
		older.at = at + memory.threads.older.at;
		at = get_number(&older);
	}
}

static void
add_l1s(void)
{
	const struct hz4_view *v = &memory.view;
	struct hz4_view_number l1 = memory.l1.all;
	uint64_t at, i, n = get_number(&memory.l1.end);
	size_t bytes = (size_t)memory.l1.bytes, cls;

	for (i = 0; i < n && i < MOST_L1S; i++, l1.at += l1.stride) {
		at = get_number(&l1);
		if (at == 0 || !get(at, memory.buffer, bytes))
			continue;
		for (cls = 1; cls < v->classes; cls++) {
			memory.sum[cls].net += (int64_t)pick(
				bytes, &memory.l1.net, cls);
			memory.sum[cls].cached += pick(bytes, &memory.l1.count,
						       cls);
		}
	}
}

static uint64_t
not_negative(int64_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

/* The row of one class, as class_row of src/info.c has it. */
static void
add_row(struct figures *f, size_t cls, const uint64_t *sampled, uint64_t size,
	uint64_t slots, uint64_t spans)
{
	size_t last = memory.view.classes - 1;
	uint64_t *row = f->now + f->values +
			(cls == last ? 0 : cls - 1) * f->columns;
	const struct sum *s = &memory.sum[cls];
	uint64_t live = sampled[cls] +
			not_negative(s->net - (int64_t)s->cached);
	uint64_t left = not_negative((int64_t)(spans * slots) - s->net);

	size = cls == last ? 0 : size;
	row[COLUMN_size] += size;
	row[COLUMN_live_objects] += live;
	row[COLUMN_cached_objects] += s->cached;
	row[COLUMN_free_objects] += left;
	row[COLUMN_spans] += spans;
	f->now[VALUE_live] += live * size;
	f->now[VALUE_live_objects] += live;
	f->now[VALUE_cached] += s->cached * size;
	f->now[VALUE_cached_objects] += s->cached;
	f->now[VALUE_in_spans] += left * size;
	f->now[VALUE_spans] += spans;
}

static void
add_classes(struct figures *f)
{
	const struct hz4_view *v = &memory.view;
	uint64_t bare[MOST_CLASSES], sampled[MOST_CLASSES];
	uint64_t size[MOST_CLASSES], slots[MOST_CLASSES], n[MOST_CLASSES];
	uint64_t spans[MOST_CLASSES] = { 0 };
	uint64_t shard, shards = get_number(&v->last_shard) + 1;
	size_t cls;

	get_numbers(&memory.threads.bare_net, 0, v->classes, bare);
	get_numbers(&memory.samples.objects, 0, v->classes, sampled);
	get_numbers(&v->size, 0, v->classes, size);
	get_numbers(&v->slots, 0, v->classes, slots);
	for (shard = 0; shard < shards && shard < MOST_SHARDS; shard++) {
		get_numbers(&v->spans, shard * v->shard_stride,
			    v->classes, n);
		for (cls = 1; cls < v->classes; cls++)
			spans[cls] += n[cls];
	}
	for (cls = 1; cls < v->classes; cls++) {
		memory.sum[cls].net += (int64_t)bare[cls];
		add_row(f, cls, sampled, size[cls], slots[cls], spans[cls]);
	}
}

static void
add_whole(struct figures *f)
{
	const struct hz4_view *v = &memory.view;
	uint64_t page = UINT64_C(1) << v->page_shift % 32;
	uint64_t objects[2], bytes[2], unused, mapped;

	get_numbers(&memory.large.objects, 0, 2, objects);
	get_numbers(&memory.large.bytes, 0, 2, bytes);
	/* Asked for first: a chunk that comes meanwhile counts in both. */
	unused = get_number(&memory.meta.unused);
	mapped = get_number(&memory.meta.mapped);
	f->now[VALUE_metadata] = mapped > unused ? mapped - unused : 0;
	f->now[VALUE_large] = bytes[0] + bytes[1];
	f->now[VALUE_large_objects] = objects[0] + objects[1];
	f->now[VALUE_mappings] = objects[1];
	f->now[VALUE_mapping_bytes] = bytes[1];
	f->now[VALUE_live] += bytes[0] + bytes[1] +
			      get_number(&memory.guards.bytes);
	f->now[VALUE_live_objects] += objects[0] + objects[1] +
				      get_number(&memory.guards.objects);
	f->now[VALUE_free_pages] = get_number(&v->free_pages) * page;
	f->now[VALUE_dirty_pages] = get_number(&v->dirty_pages) * page;
	f->now[VALUE_purged_in_spans] =
		get_number(&v->purged) * get_number(&v->os_page);
	f->now[VALUE_mapped] = get_number(&v->mapped) + bytes[1] +
			       get_number(&memory.meta.mapped) +
			       get_number(&memory.guards.mapped);
	f->now[f->cells - f->columns + COLUMN_live_objects] =
		objects[0] + objects[1];
}

enum status
memory_read(struct figures *f)
{
	struct hz4_view view = { .layout = 0 };

	/* The program may have been replaced by another one. */
	if (!get(memory.at, &view, sizeof view) ||
	    memcmp(&view, &memory.view, sizeof view) != 0)
		return FAILED;
	memset(memory.sum, 0, sizeof memory.sum);
	memset(f->now, 0, f->cells * sizeof *f->now);
	f->published = stat_now();
	add_caches();
	add_l1s();
	add_classes(f);
	add_whole(f);
	return OK;
}
