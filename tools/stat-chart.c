/*
 * stat-chart.c - figures on a terminal, each with a line of bars for what it
 * was at the last looks: from the least to the most that the line shows.
 */
#include "config.h"

#include "stat.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	MOST_LOOKS = 256,
	TEXT_COLUMNS = 45, /* name, value and change, and blanks */
	HEIGHTS = 8,
};

/* What each figure was, the latest look last. */
static struct {
	uint64_t *value; /* MOST_LOOKS each */
	size_t values, looks;
} history;

static const char *const blocks[HEIGHTS] = {
	"\u2581", "\u2582", "\u2583", "\u2584",
	"\u2585", "\u2586", "\u2587", "\u2588",
};
static const char *const signs[HEIGHTS] = {
	"_", ".", ":", "-", "=", "+", "*", "#",
};

static size_t
columns(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		return size.ws_col;
	return 80;
}

/* As many looks as there is room for, without the oldest ones. */
static void
remember(const struct figures *f)
{
	size_t i;

	if (history.values != f->values) {
		free(history.value);
		history.value = need(calloc(f->values * MOST_LOOKS,
					    sizeof *history.value));
		history.values = f->values;
		history.looks = 0;
	}
	if (history.looks == MOST_LOOKS) {
		memmove(history.value, history.value + 1,
			(f->values * MOST_LOOKS - 1) * sizeof *history.value);
		history.looks--;
	}
	for (i = 0; i < f->values; i++)
		history.value[i * MOST_LOOKS + history.looks] = f->now[i];
	history.looks++;
}

static void
draw(const uint64_t *value, size_t n, const char *const *height)
{
	uint64_t least = UINT64_MAX, most = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		least = value[i] < least ? value[i] : least;
		most = value[i] > most ? value[i] : most;
	}
	for (i = 0; i < n; i++)
		fputs(height[most == least ? 0 :
			     (size_t)((double)(value[i] - least) /
				      (double)(most - least) *
				      (HEIGHTS - 0.01))], stdout);
}

void
show_chart(const struct figures *f)
{
	size_t width = columns(), room, n, i;
	const char *const *height;
	double change;

	setlocale(LC_CTYPE, "");
	height = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? blocks : signs;
	remember(f);
	room = width > TEXT_COLUMNS ? width - TEXT_COLUMNS : 0;
	n = history.looks < room ? history.looks : room;
	printf("\033[H\033[2Jhz4 %s, %s, process %d\n\n", f->version,
	       f->flavour, f->pid);
	for (i = 0; i < f->values; i++) {
		printf("%-16.24s %15" PRIu64, f->names[i], f->now[i]);
		if (stat_change(f, f->now[i], f->old[i], &change))
			printf(" %+11.0f ", change);
		else
			printf(" %11s ", "-");
		draw(history.value + i * MOST_LOOKS + history.looks - n, n,
		     height);
		putchar('\n');
	}
}
