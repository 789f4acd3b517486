/*
 * hz4-stat.c - show the figures of a running process: what it publishes with
 * HZ4_OPTIONS=stats_live=1, or else what lies in its memory.  See hz4-stat(1).
 */
#include "config.h"

#include "stat.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char tool_name[] = "hz4-stat";

static struct {
	bool json, classes, watch, prometheus;
	double seconds;
} want = { .seconds = 1 };

/* The figures come from a page, not from the process's memory. */
static bool has_page;

static void
usage(FILE *to)
{
	fputs("usage: hz4-stat [--json] [--classes] [--watch[=SECONDS]] PID\n"
	      "       hz4-stat --prometheus [--classes] PID\n"
	      "       hz4-stat --help | --version\n", to);
}

static const char help[] =
	"\n"
	"Show what process PID, which runs on hz4, does with its\n"
	"memory.  Builds with statistics count calls as well, and\n"
	"publish that with stats_live=1:\n"
	"    HZ4_OPTIONS=stats_live=1 hz4-preload --flavour=stats "
	"COMMAND\n"
	"\n"
	"  -j, --json             JSON instead of \"name value\" lines\n"
	"  -p, --prometheus       Prometheus's text format\n"
	"  -c, --classes          every size class in use, too\n"
	"  -w, --watch[=SECONDS]  again and again until PID ends, with\n"
	"                         the change per second [1]; on a\n"
	"                         terminal, with a chart\n"
	"      --help             this text\n"
	"      --version          the version\n";

static bool
parse_seconds(const char *text)
{
	char *end;

	want.watch = true;
	if (text == NULL)
		return true;
	want.seconds = strtod(text, &end);
	return *text >= '0' && *text <= '9' && *end == '\0' &&
	       want.seconds >= 0.01 && want.seconds <= 86400;
}

static void
parse_option(int c)
{
	switch (c) {
	case 'j':
		want.json = true;
		break;
	case 'p':
		want.prometheus = true;
		break;
	case 'c':
		want.classes = true;
		break;
	case 'w':
		if (!parse_seconds(optarg))
			exit(complain(USAGE, "%s: not a number of seconds "
				      "from 0.01 to 86400", optarg));
		break;
	default:
		tool_option(c, usage, help);
	}
}

/* Exits for --help, --version and whatever is wrong.  Returns the process. */
static int
parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "prometheus", no_argument, NULL, 'p' },
		{ "classes", no_argument, NULL, 'c' },
		{ "watch", optional_argument, NULL, 'w' },
		TOOL_OPTIONS
	};
	long pid;
	int c;

	while ((c = getopt_long(argc, argv, "jpcw::", options, NULL)) != -1)
		parse_option(c);
	if (want.prometheus && (want.json || want.watch))
		exit(complain(USAGE, "--prometheus goes with neither --json "
			      "nor --watch"));
	if (optind + 1 != argc) {
		usage(stderr);
		exit(USAGE);
	}
	if (!parse_count(argv[optind], INT_MAX, &pid))
		exit(complain(USAGE, "%s: not a process id", argv[optind]));
	return (int)pid;
}

static bool
is_chart(void)
{
	return want.watch && !want.json && !want.classes &&
	       isatty(STDOUT_FILENO);
}

static enum status
show(struct figures *f)
{
	uint64_t *swap;

	if (want.json)
		show_json(f, want.classes);
	else if (want.prometheus)
		show_prometheus(f, want.classes);
	else if (is_chart())
		show_chart(f);
	else
		show_text(f, want.classes, want.watch);
	swap = f->old;
	f->old = f->now;
	f->now = swap;
	f->published_old = f->published;
	if (fflush(stdout) != 0 || ferror(stdout))
		return complain(FAILED, "standard output: %s",
				strerror(errno));
	return OK;
}

/* What the process has now. */
static enum status
look(struct figures *f)
{
	page_close();
	figures_free(f);
	has_page = page_find(f->pid);
	return has_page ? page_open(f) : memory_open(f);
}

static enum status
read_figures(struct figures *f)
{
	return has_page ? page_read(f) : memory_read(f);
}

static bool
has_ended(const struct figures *f)
{
	return (has_page && page_is_closed()) || !process_exists(f->pid);
}

/* The same once more; a program that was executed meanwhile is looked at. */
static enum status
look_again(struct figures *f)
{
	enum status status = FAILED;

	if (!has_page)
		status = memory_read(f);
	else if (!page_is_replaced(f->pid))
		status = page_read(f);
	if (status != FAILED)
		return status;
	/* It may just be starting, or ending. */
	nap(0.1);
	if (!process_exists(f->pid))
		return NO_PROCESS;
	status = look(f);
	if (status != OK)
		return status;
	status = read_figures(f);
	return status == FAILED ? NO_PROCESS : status;
}

static enum status
watch(struct figures *f)
{
	enum status status = show(f);

	while (status == OK && !has_ended(f)) {
		nap(want.seconds);
		if (has_ended(f))
			break;
		status = look_again(f);
		if (status == NO_PROCESS)
			return OK;
		if (status != OK)
			break;
		if (!want.json && !isatty(STDOUT_FILENO))
			putchar('\n');
		else if (!want.json && !is_chart())
			fputs("\033[H\033[2J", stdout);
		status = show(f);
	}
	return status;
}

int
main(int argc, char **argv)
{
	static struct figures figures;
	enum status status;

	figures.pid = parse_options(argc, argv);
	status = look(&figures);
	if (status == OK) {
		status = read_figures(&figures);
		if (status == FAILED)
			complain(FAILED, "process %d has ended, or runs "
				 "another program now", figures.pid);
	}
	if (status == OK)
		status = want.watch ? watch(&figures) : show(&figures);
	return (int)status;
}
