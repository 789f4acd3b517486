/*
 * list.h against an array, and the helpers of base.h.
 */
#include "unit.h"

#include "list.h"

enum { ELEMENTS = 32, OPERATIONS = 20000 };

struct element {
	unsigned number;
	struct hz4_list link;
};

static struct hz4_list head;
static struct element element[ELEMENTS];

/* What the list should hold, in order. */
static unsigned model[ELEMENTS], held;

static struct element *
of_link(struct hz4_list *l)
{
	return hz4_container(l, struct element, link);
}

static void
compare(void)
{
	struct hz4_list *l, *before = &head;
	unsigned n = 0;

	unit_need(hz4_list_empty(&head) == (held == 0), "%u held", held);
	for (l = head.next; l != &head; before = l, l = l->next, n++) {
		unit_need(n < held, "longer than %u", held);
		unit_need(l->prev == before, "at %u", n);
		unit_need(of_link(l)->number == model[n], "at %u", n);
	}
	unit_need(n == held && head.prev == before, "%u of %u", n, held);
}

static unsigned
place_of(unsigned number)
{
	unsigned i;

	for (i = 0; i < held && model[i] != number; i++)
		;
	return i;
}

START_TEST(alone)
{
	hz4_list_init(&head);
	ck_assert(hz4_list_empty(&head));
	ck_assert_ptr_eq(head.next, &head);
	ck_assert_ptr_eq(head.prev, &head);
	/* What is in no list may be removed, and still is in none. */
	hz4_list_remove(&head);
	ck_assert(hz4_list_empty(&head));
}
END_TEST

START_TEST(front_and_back)
{
	struct hz4_list a, b, c;

	hz4_list_init(&head);
	hz4_list_push(&head, &b);
	hz4_list_push(&head, &a);
	hz4_list_append(&head, &c);
	ck_assert_ptr_eq(head.next, &a);
	ck_assert_ptr_eq(a.next, &b);
	ck_assert_ptr_eq(b.next, &c);
	ck_assert_ptr_eq(c.next, &head);
	ck_assert_ptr_eq(head.prev, &c);
	hz4_list_remove(&b);
	ck_assert(hz4_list_empty(&b));
	ck_assert_ptr_eq(a.next, &c);
	ck_assert_ptr_eq(c.prev, &a);
}
END_TEST

START_TEST(as_an_array)
{
	uint64_t seed = 1;
	unsigned i, k, n;

	hz4_list_init(&head);
	for (i = 0; i < ELEMENTS; i++) {
		element[i].number = i;
		hz4_list_init(&element[i].link);
	}
	for (i = 0; i < OPERATIONS; i++) {
		n = (unsigned)unit_below(&seed, ELEMENTS);
		k = place_of(n);
		if (k < held) {
			hz4_list_remove(&element[n].link);
			unit_need(hz4_list_empty(&element[n].link), "%u", n);
			held--;
			memmove(model + k, model + k + 1,
				(held - k) * sizeof *model);
		} else if (unit_below(&seed, 2)) {
			hz4_list_push(&head, &element[n].link);
			memmove(model + 1, model, held++ * sizeof *model);
			model[0] = n;
		} else {
			hz4_list_append(&head, &element[n].link);
			model[held++] = n;
		}
		compare();
	}
}
END_TEST

START_TEST(powers_and_logs)
{
	unsigned bit;
	size_t n;

	ck_assert(!hz4_is_pow2(0));
	for (bit = 0; bit < sizeof(size_t) * 8; bit++) {
		n = (size_t)1 << bit;
		ck_assert(hz4_is_pow2(n));
		ck_assert_uint_eq(hz4_log2(n), bit);
		ck_assert_uint_eq(hz4_log2(n | (n - 1)), bit);
		if (bit > 1)
			ck_assert(!hz4_is_pow2(n - 1) && !hz4_is_pow2(n + 1));
	}
	for (n = 1; n <= 1 << 16; n++)
		unit_need((size_t)1 << hz4_log2(n) <= n &&
				  n >> hz4_log2(n) == 1 &&
				  hz4_is_pow2(n) ==
					  ((size_t)1 << hz4_log2(n) == n),
			  "%zu", n);
}
END_TEST

START_TEST(rounding)
{
	size_t n, unit, r;

	for (unit = 1; unit <= 300; unit++)
		for (n = 0; n <= 2000; n++) {
			r = hz4_round_up(n, unit);
			unit_need(r >= n && r - n < unit && r % unit == 0,
				  "%zu to %zu is %zu", n, unit, r);
		}
	ck_assert_uint_eq(hz4_round_up(SIZE_MAX - 15, 16), SIZE_MAX - 15);
	ck_assert_uint_eq(hz4_min(0, SIZE_MAX), 0);
	ck_assert_uint_eq(hz4_min(7, 7), 7);
	ck_assert_uint_eq(hz4_max(0, SIZE_MAX), SIZE_MAX);
	ck_assert_uint_eq(hz4_max(8, 7), 8);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, alone);
	tcase_add_test(t, front_and_back);
	tcase_add_test(t, as_an_array);
	tcase_add_test(t, powers_and_logs);
	tcase_add_test(t, rounding);
}

int
main(void)
{
	return unit_main("list", add);
}
