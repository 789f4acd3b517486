/*
 * info.h: the figures are true in every build, the counters in those that
 * count, and the reports are well formed at any length.
 */
#include "unit.h"

#include "heap.h"
#include "info.h"
#include "option.h"

enum { TEXT = 1 << 20, CALLS = 3000 };

static char whole[TEXT], cut[TEXT];

static const size_t sizes[] = {
	1, 100, 2000, 2049, 20000, 65536, 100000, HZ4_CLASS_MAX,
	HZ4_CLASS_MAX + 1, 3 << 20, HZ4_HUGE_MIN, HZ4_HUGE_MIN + 1,
};
enum { SIZES = sizeof sizes / sizeof *sizes };

static struct hz4_info
info(void)
{
	struct hz4_info i;

	hz4_info_get(&i);
	return i;
}

/* What must hold at any time while nobody else works. */
static void
compare(size_t live, size_t objects)
{
	struct hz4_info i = info();

	ck_assert_uint_eq(i.live, live);
	ck_assert_uint_eq(i.live_objects, objects);
	ck_assert_uint_le(i.dirty_pages, i.free_pages);
	ck_assert_uint_le(i.purged_in_spans, i.in_spans);
	ck_assert_uint_le(i.large, i.live);
	ck_assert_uint_le(i.large_objects, i.live_objects);
	ck_assert_uint_le(i.mapping_bytes, i.large);
	ck_assert_uint_ge(i.mapped, i.live + i.cached + i.in_spans +
					    i.free_pages + i.metadata);
}

START_TEST(live_is_what_is_live)
{
	void *p[SIZES];
	size_t live = 0, large = 0, mapped = 0, larges = 0, mappings = 0;
	unsigned i, round;

	compare(0, 0);
	for (round = 0; round < 5; round++) {
		for (i = 0; i < SIZES; i++) {
			size_t got;

			p[i] = hz4_heap_malloc(sizes[i]);
			got = hz4_heap_usable(p[i]);
			live += got;
			compare(live, i + 1);
			large += sizes[i] > HZ4_CLASS_MAX ? got : 0;
			larges += sizes[i] > HZ4_CLASS_MAX;
			mapped += sizes[i] >= HZ4_HUGE_MIN ? got : 0;
			mappings += sizes[i] >= HZ4_HUGE_MIN;
		}
		ck_assert_uint_eq(info().large, large);
		ck_assert_uint_eq(info().large_objects, larges);
		ck_assert_uint_eq(info().mapping_bytes, mapped);
		ck_assert_uint_eq(info().mappings, mappings);
		for (i = 0; i < SIZES; i++) {
			live -= hz4_heap_usable(p[i]);
			hz4_heap_free(p[i]);
			compare(live, SIZES - 1 - i);
		}
		large = larges = mapped = mappings = 0;
		if (round % 2)
			hz4_heap_trim();
	}
	hz4_heap_trim();
	compare(0, 0);
	ck_assert_uint_eq(info().cached, 0);
	ck_assert_uint_eq(info().cached_objects, 0);
	ck_assert_uint_eq(info().in_spans, 0);
	ck_assert_uint_eq(info().spans, 0);
	ck_assert_uint_eq(info().dirty_pages, 0);
	ck_assert_uint_eq(info().large, 0);
}
END_TEST

static void *held[CALLS];
static _Atomic unsigned here;
static _Atomic bool go_on;

static void *
allocate_and_wait(void *arg)
{
	unsigned i;

	for (i = 0; i < CALLS; i++)
		held[i] = hz4_heap_malloc(100);
	here++;
	while (!go_on)
		unit_sleep(1);
	return arg;
}

static void *
free_some(void *arg)
{
	unsigned i;

	for (i = 0; i < CALLS / 2; i++)
		hz4_heap_free(held[i]);
	return arg;
}

/* Objects cross from a thread to one that ends, and stay when theirs does. */
START_TEST(sums_over_threads)
{
	size_t size = hz4_heap_good_size(100);
	pthread_t id;
	unsigned i;

	pthread_create(&id, NULL, allocate_and_wait, NULL);
	while (here == 0)
		unit_sleep(1);
	compare(CALLS * size, CALLS);
	unit_thread(free_some, NULL);
	compare(CALLS / 2 * size, CALLS / 2);
	go_on = true;
	pthread_join(id, NULL);
	compare(CALLS / 2 * size, CALLS / 2);
	for (i = CALLS / 2; i < CALLS; i++)
		hz4_heap_free(held[i]);
	compare(0, 0);
}
END_TEST

/* As snprintf, for every size up to a little more than is needed. */
static void
cut_everywhere(enum hz4_form form)
{
	size_t length, size, step;

	/* The reports' own memory must be there before. */
	hz4_info_report(NULL, 0, form);
	length = hz4_info_report(whole, sizeof whole, form);
	ck_assert_uint_eq(strlen(whole), length);
	ck_assert_uint_eq(hz4_info_report(NULL, 0, form), length);
	step = length > 4000 ? 97 : 1;
	for (size = 1; size <= length + 2; size += step) {
		memset(cut, 'x', size + 1);
		unit_need(hz4_info_report(cut, size, form) == length, "%zu",
			  size);
		unit_need(strlen(cut) == hz4_min(size - 1, length), "%zu",
			  size);
		unit_need(memcmp(cut, whole, strlen(cut)) == 0, "%zu", size);
		unit_need(cut[size] == 'x', "%zu", size);
	}
	memset(cut, 'x', 2);
	hz4_info_report(cut, 0, form);
	ck_assert_int_eq(cut[0], 'x');
}

START_TEST(cut_to_any_size)
{
	void *p = hz4_heap_malloc(100);

	cut_everywhere(HZ4_TEXT);
	cut_everywhere(HZ4_JSON);
	ck_assert(hz4_option_assign("stats_classes=1", 15));
	cut_everywhere(HZ4_TEXT);
	cut_everywhere(HZ4_JSON);
	hz4_heap_free(p);
}
END_TEST

/* The number behind a name at the start of a line. */
static uint64_t
value_in(const char *text, const char *name)
{
	size_t n = strlen(name);
	const char *line;

	for (line = text; line != NULL && *line != '\0';
	     line = strchr(line, '\n'), line += line != NULL)
		if (strncmp(line, name, n) == 0 && line[n] == ' ')
			return strtoull(line + n, NULL, 10);
	ck_abort_msg("no %s in \"%s\"", name, text);
}

/* Each line a name, a blank and a value; no name twice. */
START_TEST(text_is_lines_of_names_and_values)
{
	static char names[1 << 16];
	char name[200], value[200], between;
	char *line, *end;
	int length;
	void *p = hz4_heap_malloc(5000);

	ck_assert(hz4_option_assign("stats_classes=1", 15));
	hz4_info_report(whole, sizeof whole, HZ4_TEXT);
	memcpy(cut, whole, sizeof whole);
	strcpy(names, "\n");
	for (line = cut; *line != '\0'; line = end + 1) {
		end = strchr(line, '\n');
		ck_assert_ptr_nonnull(end);
		*end = '\0';
		ck_assert_msg(sscanf(line, "%199[^ ]%c%199s%n", name, &between,
				     value, &length) == 3 &&
				      between == ' ' && line[length] == '\0',
			      "%s", line);
		ck_assert_uint_lt(strlen(names) + strlen(name) + 2,
				  sizeof names);
		strcat(name, "\n");
		snprintf(value, sizeof value, "\n%.190s", name);
		ck_assert_msg(strstr(names, value) == NULL, "%s twice", name);
		strcat(names, name);
	}
	ck_assert_uint_eq(value_in(whole, "schema"), HZ4_INFO_SCHEMA);
	ck_assert_uint_eq(value_in(whole, "live"), hz4_heap_usable(p));
	ck_assert_uint_eq(value_in(whole, "live_objects"), 1);
	ck_assert_uint_eq(value_in(whole, "class.5120.live_objects"), 1);
	hz4_heap_free(p);
}
END_TEST

START_TEST(every_figure_is_in_both_reports)
{
	char want[200];
	unsigned i;

	hz4_info_report(whole, sizeof whole, HZ4_TEXT);
	hz4_info_report(cut, sizeof cut, HZ4_JSON);
	for (i = 0; i < HZ4_INFO_VALUES; i++) {
		const char *name = hz4_info_value_name(i);

		ck_assert_ptr_nonnull(name);
		value_in(whole, name);
		snprintf(want, sizeof want, "\n  \"%s\": ", name);
		ck_assert_msg(strstr(cut, want) != NULL, "no %s in %s", name,
			      cut);
	}
	ck_assert_ptr_nonnull(hz4_info_column_name(HZ4_INFO_COLUMNS - 1));
	ck_assert_str_eq(hz4_info_flavour(), HZ4_FLAVOUR);
}
END_TEST

/* --- just enough of JSON ------------------------------------------------- */

static const char *json;

static void
blanks(void)
{
	json += strspn(json, " \t\r\n");
}

static void
expect(char c)
{
	blanks();
	ck_assert_msg(*json == c, "'%c' expected at \"%.40s\"", c, json);
	json++;
}

static void
string(void)
{
	size_t n;

	expect('"');
	n = strcspn(json, "\"\\\n");
	ck_assert(n > 0 && json[n] == '"');
	json += n + 1;
}

static void
value(unsigned depth)
{
	char close;
	size_t n;

	blanks();
	ck_assert_uint_lt(depth, 10);
	if (*json == '"') {
		string();
		return;
	}
	if (*json != '{' && *json != '[') {
		n = strspn(json, "0123456789");
		ck_assert_msg(n > 0 && (*json != '0' || n == 1), "%.40s",
			      json);
		json += n;
		return;
	}
	close = *json++ == '{' ? '}' : ']';
	blanks();
	if (*json == close) {
		json++;
		return;
	}
	for (;;) {
		if (close == '}') {
			string();
			expect(':');
		}
		value(depth + 1);
		blanks();
		if (*json != ',')
			break;
		json++;
	}
	expect(close);
}

START_TEST(json_is_json)
{
	void *p = hz4_heap_malloc(5000);
	unsigned classes;

	for (classes = 0; classes < 2; classes++) {
		ck_assert(hz4_option_assign(classes ? "stats_classes=1" :
						      "stats_classes=0", 15));
		hz4_info_report(whole, sizeof whole, HZ4_JSON);
		json = whole;
		value(0);
		blanks();
		ck_assert_int_eq(*json, '\0');
		ck_assert_ptr_nonnull(strstr(whole, "\"schema\": 1,"));
		ck_assert_int_eq(strstr(whole, "\"classes\": [") != NULL,
				 classes);
	}
	hz4_heap_free(p);
}
END_TEST

/* --- counters ------------------------------------------------------------ */

static struct hz4_snapshot before, after;

static uint64_t
stat_of(const struct hz4_snapshot *s, const char *name)
{
	unsigned i;

	for (i = 0; i < HZ4_INFO_VALUES; i++)
		if (strcmp(hz4_info_value_name(i), name) == 0)
			return s->value[i];
	ck_abort_msg("no %s", name);
}

static uint64_t
counted(const char *name)
{
	return stat_of(&after, name) - stat_of(&before, name);
}

static size_t call_size;

static void *
make_calls(void *arg)
{
	unsigned i;

	for (i = 0; i < CALLS; i++)
		held[i] = hz4_heap_malloc(call_size);
	for (i = 0; i < CALLS; i++)
		hz4_heap_free(held[i]);
	/* One at a time, and in both orders of the ends. */
	for (i = 0; i < CALLS; i++)
		hz4_heap_free(hz4_heap_malloc(call_size));
	return arg;
}

/* Each call is counted once, whoever serves it. */
static void
count_calls(size_t size, bool thread)
{
	call_size = size;
	hz4_info_snapshot(&before);
	if (thread)
		unit_thread(make_calls, NULL);
	else
		make_calls(NULL);
	hz4_info_snapshot(&after);
	ck_assert_msg(counted("malloc_calls") == 2 * CALLS,
		      "%u mallocs of %zu bytes, not %u",
		      (unsigned)counted("malloc_calls"), size, 2 * CALLS);
	ck_assert_msg(counted("free_calls") == 2 * CALLS,
		      "%u frees of %zu bytes, not %u",
		      (unsigned)counted("free_calls"), size, 2 * CALLS);
	ck_assert_uint_eq(counted("malloc_alloc_run_refill_calls"),
			  counted("malloc_lock_path"));
	ck_assert_uint_eq(counted("malloc_lock_path"),
			  counted("malloc_transfer_hit") +
				  counted("malloc_span_create"));
	ck_assert_uint_eq(counted("malloc_alloc_run_refill_objs"),
			  counted("free_alloc_run_flush_objs") +
				  (after.value[HZ4_FIGURE_cached_objects] -
				   before.value[HZ4_FIGURE_cached_objects]));
}

START_TEST(calls_are_counted_once)
{
	unsigned i;

	if (!HZ4_MID_STATS_B1)
		return;
	for (i = 0; i < SIZES && sizes[i] <= HZ4_CLASS_MAX; i++) {
		count_calls(sizes[i], false);
		count_calls(sizes[i], true);
	}
	ck_assert(hz4_option_assign("thread_cache=0", 14));
	for (i = 0; i < SIZES && sizes[i] <= HZ4_CLASS_MAX; i++)
		count_calls(sizes[i], true);
}
END_TEST

START_TEST(other_calls_are_counted)
{
	void *p;

	if (!HZ4_MID_STATS_B1)
		return;
	hz4_info_snapshot(&before);
	p = hz4_heap_malloc(1 << 20);
	p = hz4_heap_realloc(p, (1 << 20) - 1);
	hz4_heap_free(p);
	hz4_heap_free(NULL);
	p = hz4_heap_malloc((size_t)PTRDIFF_MAX + call_size + 1);
	ck_assert_ptr_null(p);
	hz4_info_snapshot(&after);
	ck_assert_uint_eq(counted("malloc_calls"), 2);
	ck_assert_uint_eq(counted("free_calls"), 2);
	ck_assert_uint_eq(counted("malloc_large"), 1);
	ck_assert_uint_eq(counted("malloc_failed"), 1);
	ck_assert_uint_eq(counted("realloc_in_place"), 1);
	ck_assert_uint_eq(counted("free_large"), 1);
	ck_assert_uint_eq(counted("free_null"), 1);
}
END_TEST

/* The columns of the classes sum up to the single values. */
START_TEST(rows_sum_up)
{
	uint64_t sum[HZ4_INFO_COLUMNS] = { 0 };
	void *p[SIZES];
	unsigned i, k;

	for (i = 0; i < SIZES; i++)
		p[i] = hz4_heap_malloc(sizes[i]);
	hz4_heap_free(p[0]);
	hz4_info_snapshot(&after);
	for (i = 0; i < HZ4_INFO_ROWS; i++)
		for (k = 0; k < HZ4_INFO_COLUMNS; k++)
			sum[k] += after.row[i][k];
	ck_assert_uint_eq(sum[HZ4_CLASS_live_objects],
			  after.value[HZ4_FIGURE_live_objects]);
	ck_assert_uint_eq(sum[HZ4_CLASS_cached_objects],
			  after.value[HZ4_FIGURE_cached_objects]);
	ck_assert_uint_eq(sum[HZ4_CLASS_spans],
			  after.value[HZ4_FIGURE_spans]);
	for (k = 0; k + 1 <= HZ4_STATS; k++)
		ck_assert_uint_eq(sum[HZ4_CLASS_FIGURES + k],
				  after.value[HZ4_FIGURES + k]);
	for (i = 1; i < SIZES; i++)
		hz4_heap_free(p[i]);
}
END_TEST

/* What the live page relies on: the length does not follow the values. */
START_TEST(fixed_text_is_as_long_always)
{
	static struct hz4_snapshot s;
	size_t least, most;

	ck_assert(hz4_option_assign("stats_classes=1", 15));
	hz4_info_snapshot(&s);
	least = hz4_info_render(whole, sizeof whole, HZ4_TEXT_FIXED, &s);
	memset(s.value, 0xff, sizeof s.value);
	for (unsigned i = 0; i < HZ4_INFO_ROWS; i++)
		for (unsigned k = 1; k < HZ4_INFO_COLUMNS; k++)
			s.row[i][k] = UINT64_MAX;
	most = hz4_info_render(whole, sizeof whole, HZ4_TEXT_FIXED, &s);
	ck_assert_uint_eq(least, most);
	ck_assert_uint_eq(strlen(whole), most);
}
END_TEST

static void
print_all(void *arg)
{
	hz4_option_assign("stats_classes=0", 15);
	hz4_info_print(STDERR_FILENO);
	(void)arg;
}

START_TEST(printed_as_text)
{
	struct unit_end end;

	hz4_heap_free(hz4_heap_malloc(1));
	unit_child(&end, print_all, NULL);
	ck_assert_int_eq(end.status, 0);
	ck_assert_uint_eq(value_in(end.text, "schema"), HZ4_INFO_SCHEMA);
	ck_assert_uint_eq(value_in(end.text, "live"), 0);
	ck_assert_int_eq(end.text[end.length - 1], '\n');
}
END_TEST

/* What was there at most: two mappings, one of which grew, and left. */
START_TEST(printed_with_glibcs_lines)
{
	struct unit_end end;
	struct hz4_info info;
	char want[400];
	void *p = hz4_heap_malloc(HZ4_HUGE_MIN);
	void *q = hz4_heap_malloc(HZ4_HUGE_MIN);

	hz4_heap_free(p);
	q = hz4_heap_realloc(q, 4 * HZ4_HUGE_MIN);
	p = hz4_heap_malloc(100);
	/* The memory for a report is there already. */
	hz4_info_report(whole, sizeof whole, HZ4_TEXT);
	hz4_info_get(&info);
	ck_assert_uint_eq(info.mappings, 1);
	ck_assert_uint_ge(info.mapping_bytes, (size_t)4 * HZ4_HUGE_MIN);
	unit_child(&end, print_all, NULL);
	ck_assert_int_eq(end.status, 0);
	snprintf(want, sizeof want,
		 "Arena 0:\n"
		 "system bytes     = %10zu\n"
		 "in use bytes     = %10zu\n"
		 "Total (incl. mmap):\n"
		 "system bytes     = %10zu\n"
		 "in use bytes     = %10zu\n"
		 "max mmap regions =          2\n"
		 "max mmap bytes   = %10zu\n"
		 "schema %d\n",
		 info.mapped - info.mapping_bytes,
		 info.live - info.mapping_bytes, info.mapped, info.live,
		 info.mapping_bytes, HZ4_INFO_SCHEMA);
	ck_assert_msg(strncmp(end.text, want, strlen(want)) == 0,
		      "\"%s\" does not begin with \"%s\"", end.text, want);
	ck_assert_uint_eq(end.writes, 1);
	hz4_heap_free(p);
	hz4_heap_free(q);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, live_is_what_is_live);
	tcase_add_test(t, sums_over_threads);
	tcase_add_test(t, cut_to_any_size);
	tcase_add_test(t, text_is_lines_of_names_and_values);
	tcase_add_test(t, every_figure_is_in_both_reports);
	tcase_add_test(t, json_is_json);
	tcase_add_test(t, calls_are_counted_once);
	tcase_add_test(t, other_calls_are_counted);
	tcase_add_test(t, rows_sum_up);
	tcase_add_test(t, fixed_text_is_as_long_always);
	tcase_add_test(t, printed_as_text);
	tcase_add_test(t, printed_with_glibcs_lines);
}

int
main(void)
{
	return unit_main("info", add);
}
