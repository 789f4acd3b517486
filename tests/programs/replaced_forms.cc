/*
 * Every form of operator new and delete, in a program that replaces some.
 * The argument names them: digits, 0 new, 1 delete, 2 new[], 3 delete[], and
 * 4 to 7 the aligned ones of these.  Each form has to call the first of
 * those it goes by that is replaced, once, and no other.
 */
#include <cstdio>
#include <cstring>
#include <new>
#include <pthread.h>

#ifndef __cpp_sized_deallocation
void operator delete(void *, std::size_t) noexcept;
void operator delete[](void *, std::size_t) noexcept;
#ifdef __cpp_aligned_new
void operator delete(void *, std::size_t, std::align_val_t) noexcept;
void operator delete[](void *, std::size_t, std::align_val_t) noexcept;
#endif
#endif

extern "C" {
__attribute__((weak)) unsigned replaced_calls[8];
__attribute__((weak)) bool replaced_fails;
}

namespace {

const char *replaced = "";
int failures;

struct form {
	const char *name;
	int first;	/* what it goes by */
	int then;	/* and what that goes by, -1: the heap */
	void *(*make)(std::size_t);
	void (*drop)(void *, std::size_t);
};

#define MAKE(expr) [](std::size_t n) -> void * { return expr; }, nullptr
#define DROP(expr) nullptr, [](void *p, std::size_t n) { (void)n; expr; }

const form news[] = {
	{ "new", 0, -1, MAKE(::operator new(n)) },
	{ "new nothrow", 0, -1, MAKE(::operator new(n, std::nothrow)) },
};
const form deletes[] = {
	{ "delete", 1, -1, DROP(::operator delete(p)) },
	{ "delete sized", 1, -1, DROP(::operator delete(p, n)) },
	{ "delete nothrow", 1, -1, DROP(::operator delete(p, std::nothrow)) },
};
const form array_news[] = {
	{ "new[]", 2, 0, MAKE(::operator new[](n)) },
	{ "new[] nothrow", 2, 0, MAKE(::operator new[](n, std::nothrow)) },
};
const form array_deletes[] = {
	{ "delete[]", 3, 1, DROP(::operator delete[](p)) },
	{ "delete[] sized", 3, 1, DROP(::operator delete[](p, n)) },
	{ "delete[] nothrow", 3, 1,
	    DROP(::operator delete[](p, std::nothrow)) },
};
#ifdef __cpp_aligned_new
const std::align_val_t align = std::align_val_t(128);
const form aligned_news[] = {
	{ "new aligned", 4, -1, MAKE(::operator new(n, align)) },
	{ "new aligned nothrow", 4, -1,
	    MAKE(::operator new(n, align, std::nothrow)) },
};
const form aligned_deletes[] = {
	{ "delete aligned", 5, -1, DROP(::operator delete(p, align)) },
	{ "delete aligned sized", 5, -1,
	    DROP(::operator delete(p, n, align)) },
	{ "delete aligned nothrow", 5, -1,
	    DROP(::operator delete(p, align, std::nothrow)) },
};
const form aligned_array_news[] = {
	{ "new[] aligned", 6, 4, MAKE(::operator new[](n, align)) },
	{ "new[] aligned nothrow", 6, 4,
	    MAKE(::operator new[](n, align, std::nothrow)) },
};
const form aligned_array_deletes[] = {
	{ "delete[] aligned", 7, 5, DROP(::operator delete[](p, align)) },
	{ "delete[] aligned sized", 7, 5,
	    DROP(::operator delete[](p, n, align)) },
	{ "delete[] aligned nothrow", 7, 5,
	    DROP(::operator delete[](p, align, std::nothrow)) },
};
#endif

void
wrong(const char *what, const char *how)
{
	if (failures++ < 10)
		std::fprintf(stderr, "%s: %s\n", what, how);
}

/* The replaced operator that a form has to come to, or -1. */
int
target(const form &f)
{
	if (std::strchr(replaced, '0' + f.first) != nullptr)
		return f.first;
	if (f.then >= 0 && std::strchr(replaced, '0' + f.then) != nullptr)
		return f.then;
	return -1;
}

/* Since the counts were cleared, `f` alone was called, `n` times. */
void
called(const form &f, unsigned n)
{
	for (int i = 0; i < 8; i++)
		if (replaced_calls[i] != (i == target(f) ? n : 0))
			wrong(f.name, "does not call what it goes by, or more");
	std::memset(replaced_calls, 0, sizeof(replaced_calls));
}

/* Enough rounds for caches to be warm: hz4's are careful at first. */
void
pair(const form &make, const form &drop)
{
	const std::size_t sizes[] = { 1, 24, 100, 3000, 70000, 300000 };

	for (std::size_t n : sizes) {
		int rounds = n < 10000 ? 50 : 2;

		for (int i = 0; i < rounds; i++) {
			void *p[3];

			for (void *&q : p) {
				q = make.make(n);
				std::memset(q, i, n < 3000 ? n : 3000);
				static_cast<char *>(q)[n - 1] = 1;
			}
			called(make, 3);
			for (void *q : p)
				drop.drop(q, n);
			called(drop, 3);
		}
	}
}

/* A replaced operator throws: nothrow forms give nullptr. */
void
failing(const form &f, bool nothrow)
{
	void *p = nullptr;
	bool threw = false;

	if (target(f) < 0)
		return;
	replaced_fails = true;
	try {
		p = f.make(10);
	} catch (int) {
		threw = true;
	}
	replaced_fails = false;
	if (p != nullptr || threw == nothrow)
		wrong(f.name, "does not throw, or does");
	called(f, 1);
}

template <std::size_t N, std::size_t M>
void
family(const form (&makes)[N], const form (&drops)[M])
{
	for (const form &make : makes)
		for (const form &drop : drops)
			pair(make, drop);
	for (const form &make : makes)
		failing(make, &make != &makes[0]);
}

void
families()
{
	std::memset(replaced_calls, 0, sizeof(replaced_calls));
	family(news, deletes);
	family(array_news, array_deletes);
#ifdef __cpp_aligned_new
	family(aligned_news, aligned_deletes);
	family(aligned_array_news, aligned_array_deletes);
#endif
}

} /* namespace */

int
main(int argc, char **argv)
{
	pthread_t thread;
	auto again = [](void *) -> void * {
		families();
		return nullptr;
	};

	if (argc > 1)
		replaced = argv[1];
	families();
	if (pthread_create(&thread, nullptr, again, nullptr) != 0)
		return 99;
	pthread_join(thread, nullptr);
	return failures != 0;
}
