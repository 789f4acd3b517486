/*
 * prof-pprof.c - pprof's profile.proto, compressed, as Go's pprof and
 * continuous profilers take it.
 */
#include "config.h"

#include "prof.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

/* Numbers of the fields, as profile.proto has them. */
enum {
	PROFILE_SAMPLE_TYPE = 1,
	PROFILE_SAMPLE = 2,
	PROFILE_MAPPING = 3,
	PROFILE_LOCATION = 4,
	PROFILE_FUNCTION = 5,
	PROFILE_STRING = 6,
	PROFILE_TIME = 9,
	PROFILE_PERIOD_TYPE = 11,
	PROFILE_PERIOD = 12,
	PROFILE_COMMENT = 13,
	PROFILE_DEFAULT_TYPE = 14,
};

struct buffer {
	unsigned char *bytes;
	size_t n, room;
};

/* Entries that are known by a text, numbered from 0 on. */
struct table {
	char **text;
	size_t n;
	size_t *slot; /* number + 1, by the text's hash */
	size_t slots;
};

struct message {
	struct buffer all;
	struct table strings, functions, locations;
};

static void
put_byte(struct buffer *b, unsigned byte)
{
	if (b->n == b->room)
		b->bytes = need(realloc(b->bytes,
					b->room = b->room * 2 + 256));
	b->bytes[b->n++] = (unsigned char)byte;
}

static void
put_varint(struct buffer *b, uint64_t n)
{
	for (; n >= 0x80; n >>= 7)
		put_byte(b, (unsigned)(n & 0x7f) | 0x80);
	put_byte(b, (unsigned)n);
}

static void
put_number(struct buffer *b, unsigned field, uint64_t n)
{
	put_varint(b, field << 3);
	put_varint(b, n);
}

static void
put_bytes(struct buffer *b, unsigned field, const void *bytes, size_t n)
{
	const unsigned char *from = bytes;

	put_varint(b, field << 3 | 2);
	put_varint(b, n);
	while (n-- > 0)
		put_byte(b, *from++);
}

/* A message in the message, which is emptied for the next one. */
static void
put_message(struct buffer *b, unsigned field, struct buffer *m)
{
	put_bytes(b, field, m->bytes, m->n);
	m->n = 0;
}

static size_t
hash_of(const char *text)
{
	size_t h = 5381;

	while (*text != '\0')
		h = h * 33 ^ (unsigned char)*text++;
	return h;
}

static size_t *
slot_of(const struct table *t, const char *text)
{
	size_t i = hash_of(text) % t->slots;

	while (t->slot[i] != 0 && strcmp(t->text[t->slot[i] - 1], text) != 0)
		i = (i + 1) % t->slots;
	return &t->slot[i];
}

static void
grow(struct table *t)
{
	size_t i;

	t->slots = t->slots * 2 + 64;
	free(t->slot);
	t->slot = need(calloc(t->slots, sizeof *t->slot));
	t->text = need(realloc(t->text, t->slots * sizeof *t->text));
	for (i = 0; i < t->n; i++)
		*slot_of(t, t->text[i]) = i + 1;
}

/* The number of a text; true when it is new. */
static bool
number_of(struct table *t, const char *text, size_t *number)
{
	size_t *slot;

	if (t->n * 2 >= t->slots)
		grow(t);
	slot = slot_of(t, text);
	*number = *slot - 1;
	if (*slot != 0)
		return false;
	*number = t->n;
	t->text[t->n++] = need(strdup(text));
	*slot = t->n;
	return true;
}

static uint64_t
string(struct message *m, const char *text)
{
	size_t n;

	if (number_of(&m->strings, text, &n))
		put_bytes(&m->all, PROFILE_STRING, text, strlen(text));
	return n;
}

static void
put_type(struct message *m, unsigned field, const char *type,
	 const char *unit)
{
	struct buffer b = { NULL, 0, 0 };

	put_number(&b, 1, string(m, type));
	put_number(&b, 2, string(m, unit));
	put_message(&m->all, field, &b);
	free(b.bytes);
}

static void
put_mappings(struct message *m, const struct profile *p)
{
	struct buffer b = { NULL, 0, 0 };
	const struct mapping *all;
	size_t n, i;

	all = symbols_mappings(p->symbols, &n);
	for (i = 0; i < n; i++) {
		put_number(&b, 1, i + 1);
		put_number(&b, 2, all[i].start);
		put_number(&b, 3, all[i].end);
		put_number(&b, 4, all[i].offset);
		put_number(&b, 5, string(m, all[i].path));
		put_number(&b, 6, string(m, all[i].build_id));
		/* Functions, files, lines and inlined calls are there. */
		put_number(&b, 7, 1);
		put_number(&b, 8, 1);
		put_number(&b, 9, 1);
		put_number(&b, 10, 1);
		put_message(&m->all, PROFILE_MAPPING, &b);
	}
	free(b.bytes);
}

static uint64_t
function(struct message *m, const struct place *place)
{
	struct buffer b = { NULL, 0, 0 };
	const char *file = place->file != NULL ? place->file : "";
	char *key = need(malloc(strlen(file) + strlen(place->function) + 2));
	size_t n;

	sprintf(key, "%s\n%s", file, place->function);
	if (number_of(&m->functions, key, &n)) {
		put_number(&b, 1, n + 1);
		put_number(&b, 2, string(m, place->function));
		put_number(&b, 3, string(m, place->function));
		put_number(&b, 4, string(m, file));
		put_message(&m->all, PROFILE_FUNCTION, &b);
		free(b.bytes);
	}
	free(key);
	return n + 1;
}

static uint64_t
location(struct message *m, const struct profile *p, uint64_t address)
{
	const struct place_list *l = symbols_find(p->symbols, address);
	struct buffer b = { NULL, 0, 0 }, line = { NULL, 0, 0 };
	char key[32];
	size_t n, i, number;

	snprintf(key, sizeof key, "%llx", (unsigned long long)address);
	if (!number_of(&m->locations, key, &n))
		return n + 1;
	put_number(&b, 1, n + 1);
	if (symbols_mapping(p->symbols, address - 1, &number) != NULL)
		put_number(&b, 2, number + 1);
	put_number(&b, 3, address - 1);
	for (i = 0; i < l->n; i++) {
		put_number(&line, 1, function(m, &l->place[i]));
		put_number(&line, 2, (uint64_t)l->place[i].line);
		put_message(&b, 4, &line);
	}
	put_message(&m->all, PROFILE_LOCATION, &b);
	free(b.bytes);
	free(line.bytes);
	return n + 1;
}

static void
put_stack(struct message *m, const struct profile *p, const struct stack *s)
{
	const double values[] = { s->all, s->all_bytes, s->live,
				  s->live_bytes };
	struct buffer b = { NULL, 0, 0 }, list = { NULL, 0, 0 };
	size_t i;

	for (i = 0; i < s->depth; i++)
		put_varint(&list, location(m, p, s->address[i]));
	put_message(&b, 1, &list);
	for (i = 0; i < 4; i++)
		put_varint(&list, (uint64_t)(values[i] + 0.5));
	put_message(&b, 2, &list);
	put_message(&m->all, PROFILE_SAMPLE, &b);
	free(b.bytes);
	free(list.bytes);
}

static void
compose(struct message *m, const struct profile *p)
{
	size_t i;

	/* The first string is empty. */
	string(m, "");
	put_type(m, PROFILE_SAMPLE_TYPE, "alloc_objects", "count");
	put_type(m, PROFILE_SAMPLE_TYPE, "alloc_space", "bytes");
	put_type(m, PROFILE_SAMPLE_TYPE, "inuse_objects", "count");
	put_type(m, PROFILE_SAMPLE_TYPE, "inuse_space", "bytes");
	put_type(m, PROFILE_PERIOD_TYPE, "space", "bytes");
	put_number(&m->all, PROFILE_PERIOD, p->rate);
	put_number(&m->all, PROFILE_DEFAULT_TYPE, string(m, "inuse_space"));
	put_number(&m->all, PROFILE_TIME,
		   (uint64_t)time(NULL) * 1000000000);
	if (p->notes != NULL)
		put_number(&m->all, PROFILE_COMMENT, string(m, p->notes));
	put_mappings(m, p);
	for (i = 0; i < p->stacks; i++) {
		put_stack(m, p, &p->stack[i]);
		progress("stacks", i + 1, p->stacks);
	}
}

bool
show_pprof(FILE *to, const struct profile *p)
{
	struct message m;
	z_stream z;
	unsigned char *out;
	size_t size, n = 0;
	int r;

	memset(&m, 0, sizeof m);
	memset(&z, 0, sizeof z);
	compose(&m, p);
	/* 16: with gzip's head. */
	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return false;
	size = deflateBound(&z, (uLong)m.all.n) + 64;
	out = need(malloc(size));
	z.next_in = m.all.bytes;
	z.avail_in = (uInt)m.all.n;
	z.next_out = out;
	z.avail_out = (uInt)size;
	r = deflate(&z, Z_FINISH);
	if (r == Z_STREAM_END)
		n = fwrite(out, 1, size - z.avail_out, to);
	r = r == Z_STREAM_END && n == size - z.avail_out;
	deflateEnd(&z);
	free(out);
	free(m.all.bytes);
	return r;
}
