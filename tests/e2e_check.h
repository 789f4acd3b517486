/*
 * What the end-to-end tests with Check share on top of e2e_common.h: the
 * runner, and children whose output is kept.
 */
#ifndef HZ4_E2E_CHECK_H
#define HZ4_E2E_CHECK_H

#include "e2e_common.h"
#include "only.h"

#include <check.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The main of a test: `add` enters the tests into the only case. */
E2E_UNUSED static int
e2e_main(const char *name, unsigned timeout, void (*add)(TCase *t))
{
	Suite *s = suite_create(name);
	TCase *t = tcase_create(name);
	SRunner *r = srunner_create(s);
	int failed;

	suite_add_tcase(s, t);
	tcase_set_timeout(t, timeout);
	add(t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	if (failed != 0)
		printf("HZ4_TEST_SEED=%llu\n",
		    (unsigned long long)e2e_seed());
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Run a function in a child; it must return, within a minute. */
E2E_UNUSED static void
e2e_in_a_child(void (*what)(size_t), size_t arg)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		alarm(60);
		what(arg);
		_exit(0);
	}
	status = e2e_reap(pid, 70 * 1000);
	ck_assert_msg(status == 0, "the child's wait status is %d", status);
}

/* How a child ended, and the start of what it printed. */
struct e2e_outcome {
	int status;		/* wait status, -1 where it hung */
	char out[256];
	char err[1024];
};

E2E_UNUSED static void
e2e_read_back(int fd, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	e2e_slurp(path, text, size);
	close(fd);
}

/* Run `go` in a child; everything it prints is kept. */
E2E_UNUSED static struct e2e_outcome
e2e_capture(void (*go)(void *arg), void *arg)
{
	struct e2e_outcome o = { 0, "", "" };
	int out = memfd_create("out", 0);
	int err = memfd_create("err", 0);
	pid_t pid = fork();

	if (pid == 0) {
		dup2(out, 1);
		dup2(err, 2);
		alarm(30);
		go(arg);
		_exit(0);
	}
	o.status = e2e_reap(pid, 40000);
	e2e_read_back(out, o.out, sizeof(o.out));
	e2e_read_back(err, o.err, sizeof(o.err));
	return o;
}

#endif
