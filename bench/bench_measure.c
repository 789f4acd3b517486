/*
 * bench_measure - run one command and write down what it used.
 *
 *	bench_measure FILE PRELOAD COMMAND [ARGUMENT]...
 *
 * FILE receives one line of NAME=VALUE pairs; PRELOAD becomes LD_PRELOAD of
 * the command ("" leaves the variable unset).  The command's exit status
 * and signal are in the line; the program itself exits with 0 whenever the
 * line was written.
 *
 * Why not let the runner do it: the kernel's peak RSS of a process starts
 * at that of the process that called execve(), and Python's is larger than
 * the whole of many a command.  This program's is about one MiB, so figures
 * below that are its own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <sys/resource.h>
#include <sys/wait.h>

#define PROGRAM "bench_measure"
#include "bench.h"

int
main(int argc, char **argv)
{
	struct rusage used;
	uint64_t start;
	double wall;
	int status;
	pid_t child;
	FILE *out;

	if (argc < 4)
		die("%d arguments, but 3 are needed at least: FILE PRELOAD "
		    "COMMAND [ARGUMENT]...", argc - 1);
	out = fopen(argv[1], "we");
	if (!out)
		die("%s: %s", argv[1], strerror(errno));
	start = now_ns();
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (child == 0) {
		if (argv[2][0])
			setenv("LD_PRELOAD", argv[2], 1);
		else
			unsetenv("LD_PRELOAD");
		execvp(argv[3], argv + 3);
		fprintf(stderr, PROGRAM ": %s: %s\n", argv[3],
			strerror(errno));
		_exit(127);
	}
	while (wait4(child, &status, 0, &used) < 0) {
		if (errno != EINTR)
			die("wait4: %s", strerror(errno));
	}
	wall = seconds_since(start);
	fprintf(out, "wall_s=%.6f user_s=%.6f sys_s=%.6f peak_rss_kib=%ld "
		"vcsw=%ld ivcsw=%ld minflt=%ld majflt=%ld exit=%d signal=%d\n",
		wall, seconds(&used.ru_utime), seconds(&used.ru_stime),
		used.ru_maxrss, used.ru_nvcsw, used.ru_nivcsw, used.ru_minflt,
		used.ru_majflt, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
		WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	if (fclose(out) != 0)
		die("%s: %s", argv[1], strerror(errno));
	return 0;
}
