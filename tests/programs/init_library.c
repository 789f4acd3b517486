/*
 * A library that allocates in its constructor and uses and frees that in its
 * destructor, after main and after the program's own destructors.
 */
#include "e2e_common.h"

static void *kept[50];

__attribute__((constructor)) static void
begin(void)
{
	for (unsigned i = 0; i < 50; i++) {
		kept[i] = e2e_malloc(1 + i * i * i);
		e2e_need(kept[i] != NULL, "no memory in a constructor");
		e2e_fill(kept[i], 1 + i * i * i, i);
	}
}

__attribute__((destructor)) static void
end(void)
{
	static const char done[] = "done\n";

	e2e_ordinary_calls(20);
	for (unsigned i = 0; i < 50; i++) {
		e2e_need(e2e_differs(kept[i], 1 + i * i * i, i) == E2E_SAME,
		    "the constructor's block %u", i);
		e2e_free(kept[i]);
	}
	e2e_ordinary_calls(20);
	(void)!write(1, done, sizeof(done) - 1);
}

/* Something for the program to link to. */
void *init_library_block(void);

void *
init_library_block(void)
{
	return kept[0];
}
