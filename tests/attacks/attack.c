/*
 * attack - one mistake of a program, or one step of an attack on its heap
 *
 * usage: attack KIND SIZE
 *        attack --list
 *
 * Prints NOT STOPPED and ends with status 0 where the allocator lets it
 * happen.  --list prints a line for each kind: its name, and whether the
 * default build has to stop it, in objects of a small, a middle and a large
 * size (tests/attacks/attacks has the sizes): `a` in any heap, `-` not.
 *
 * Compiled without optimisation; the allocator under test is preloaded.
 */
#include <alloca.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KIB = 1024, MIB = 1024 * 1024, MANY = 1024 };

static size_t size;

/* Out of the compiler's sight. */
static void *(*volatile get)(size_t) = malloc;
static void (*volatile put)(void *) = free;
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static void *(*volatile move)(void *, size_t) = realloc;

static char *
object(void)
{
	char *p = get(size);

	if (p == NULL) {
		fputs("attack: no memory\n", stderr);
		exit(2);
	}
	return p;
}

/* Change a byte so far from an object's start, then free the object. */
static int
change(ptrdiff_t at)
{
	char *p = object();

	*(volatile char *)(p + at) ^= 'A';
	put(p);
	return 1;
}

/* The same by a copy of as many bytes as the object has. */
static int
change_many(ptrdiff_t at)
{
	char *from = calloc(1, size), *p = object();

	copy(p + at, from, size);
	put(p);
	return 1;
}

#define BEYOND(name, bytes) \
	static int name##_over(void) \
	{ return change((ptrdiff_t)size - 1 + (bytes)); } \
	static int name##_under(void) { return change(-(bytes)); } \
	static int name##_copy_over(void) { return change_many(bytes); } \
	static int name##_copy_under(void) { return change_many(-(bytes)); }
BEYOND(byte, 1)
BEYOND(line, 32)
BEYOND(mib, MIB)

static int
double_free(void)
{
	char *p = object();

	put(p);
	put(p);
	return 1;
}

/* With `n` other objects freed in between. */
static int
double_free_between(unsigned n)
{
	char *p[8];
	unsigned i;

	for (i = 0; i <= n; i++)
		p[i] = object();
	for (i = 0; i <= n; i++)
		put(p[i]);
	put(p[0]);
	for (i = 0; i < 8; i++)
		p[i] = object();
	return 1;
}

static int double_free_1(void) { return double_free_between(1); }
static int double_free_2(void) { return double_free_between(2); }
static int double_free_3(void) { return double_free_between(3); }

static int
double_free_later(void)
{
	char *p = object();
	int i;

	put(p);
	for (i = 0; i < MANY; i++)
		put(object());
	put(p);
	return 1;
}

static int
double_free_used_again(void)
{
	char *p = object(), *q;

	put(p);
	q = object();
	put(p);
	put(q);
	return 1;
}

static int
free_at(char *p)
{
	put(p);
	return 1;
}

static int free_inside_8(void) { return free_at(object() + 8); }
static int free_unaligned(void) { return free_at(object() + 1); }
static int free_far(void) { return free_at(object() + ((size_t)1 << 30)); }

static int
free_stack(void)
{
	volatile char c[256] = { 0 };

	return free_at((char *)c + 64);
}

static int
free_alloca(void)
{
	return free_at(alloca(size < 4096 ? 4096 : size));
}

static int
free_wild(void)
{
	return free_at((char *)(uintptr_t)0x123450);
}

static int
run_heap(void)
{
	char *p = object();
	void (*f)(void);

	memset(p, 0xc3, size < 64 ? size : 64);	/* ret, on x86 */
	memcpy(&f, &p, sizeof f);
	f();
	return 1;
}

static int
impossible(void)
{
	char *p = get((size_t)PTRDIFF_MAX + size);

	if (p == NULL)
		return 0;
	*(volatile char *)p = 1;
	return 1;
}

static int
no_bytes(int freed)
{
	volatile char *p = get(0);

	if (freed)
		put((void *)(uintptr_t)p);
	*p = 'A';
	return 1;
}

static int no_bytes_written(void) { return no_bytes(0); }
static int no_bytes_freed(void) { return no_bytes(1); }

static int
used_at_once(void)
{
	char *p = object();
	uintptr_t was = (uintptr_t)p;

	put(p);
	return was == (uintptr_t)object();
}

static int
written_after_free(void)
{
	char *p = object();
	int i;

	put(p);
	memset(p, 'A', size);
	for (i = 0; i < MANY; i++)
		put(object());
	return 1;
}

static int
read_after_free(void)
{
	char *p = object();

	memset(p, 'A', size);
	put(p);
	return memchr(p + size / 2, 'A', size - size / 2) != NULL;
}

static int
moved_from(void)
{
	char *p = object(), *q = move(p, size * 8);

	if (q == p)
		exit(3);
	put(p);
	put(q);
	return 1;
}

static const struct kind {
	const char *name;
	const char *must;
	int (*run)(void);
} kinds[] = {
	{ "byte-over", "---", byte_over },
	{ "byte-under", "---", byte_under },
	{ "byte-copy-over", "---", byte_copy_over },
	{ "byte-copy-under", "---", byte_copy_under },
	{ "line-over", "---", line_over },
	{ "line-under", "---", line_under },
	{ "line-copy-over", "---", line_copy_over },
	{ "line-copy-under", "---", line_copy_under },
	{ "mib-over", "---", mib_over },
	{ "mib-under", "---", mib_under },
	{ "mib-copy-over", "---", mib_copy_over },
	{ "mib-copy-under", "---", mib_copy_under },
	{ "double-free", "aaa", double_free },
	{ "double-free-1", "aaa", double_free_1 },
	{ "double-free-2", "aaa", double_free_2 },
	{ "double-free-3", "aaa", double_free_3 },
	{ "double-free-later", "aaa", double_free_later },
	{ "double-free-used-again", "aaa", double_free_used_again },
	{ "free-inside", "aaa", free_inside_8 },
	{ "free-unaligned", "aaa", free_unaligned },
	{ "free-far", "aaa", free_far },
	{ "free-stack", "aaa", free_stack },
	{ "free-alloca", "aaa", free_alloca },
	{ "free-wild", "aaa", free_wild },
	{ "moved-from", "aaa", moved_from },
	{ "run-heap", "aaa", run_heap },
	{ "impossible", "aaa", impossible },
	{ "no-bytes-written", "aaa", no_bytes_written },
	{ "no-bytes-freed", "aaa", no_bytes_freed },
	{ "used-at-once", "---", used_at_once },
	{ "written-after-free", "---", written_after_free },
	{ "read-after-free", "---", read_after_free },
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

int
main(int argc, char **argv)
{
	size_t i;

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (i = 0; i < KINDS; i++)
			printf("%s %s\n", kinds[i].name, kinds[i].must);
		return 0;
	}
	if (argc != 3 || (size = strtoul(argv[2], NULL, 10)) == 0) {
		fputs("usage: attack KIND SIZE | --list\n", stderr);
		return 2;
	}
	for (i = 0; i < KINDS; i++)
		if (strcmp(argv[1], kinds[i].name) == 0) {
			if (kinds[i].run())
				puts("NOT STOPPED");
			return 0;
		}
	fprintf(stderr, "attack: no kind '%s'\n", argv[1]);
	return 2;
}
