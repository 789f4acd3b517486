/*
 * probe.h - static probes (USDT) at events of slow paths, with
 * --enable-probes: a nop each, and a note that tells tools where it is and
 * where its arguments are.  hz4(7) has what they mean; tests hold it against
 * the names here.  Folds to nothing without.
 *
 * Layer 0.
 */
#ifndef HZ4_PROBE_H
#define HZ4_PROBE_H

#if HZ4_PROBES
#include <sys/sdt.h>
#define HZ4_PROBE(name) DTRACE_PROBE(hz4, name)
#define HZ4_PROBE1(name, a) DTRACE_PROBE1(hz4, name, a)
#define HZ4_PROBE2(name, a, b) DTRACE_PROBE2(hz4, name, a, b)
#else
#define HZ4_PROBE(name) ((void)0)
#define HZ4_PROBE1(name, a) ((void)(a))
#define HZ4_PROBE2(name, a, b) ((void)(a), (void)(b))
#endif

#endif
