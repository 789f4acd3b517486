/*
 * A library with thread-local storage, opened at run time: much of it that
 * the loader allocates for each thread, or little of the static kind.
 */
#include "e2e_common.h"

#ifdef TLS_STATIC
enum { BYTES = 256 };
#define MODEL __attribute__((tls_model("initial-exec")))
#else
enum { BYTES = 20000 };
#define MODEL
#endif

static __thread unsigned char bytes[BYTES] MODEL;
static __thread void *last MODEL;

void *tls_library_make(size_t n);

void *
tls_library_make(size_t n)
{
	bytes[n % BYTES]++;
	e2e_free(last);
	last = e2e_malloc(n);
	return e2e_malloc(n + bytes[0]);
}
