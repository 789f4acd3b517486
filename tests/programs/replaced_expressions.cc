/*
 * What compilers and the library of C++ make of new and delete, in a program
 * that replaces the operators named by the argument, as in replaced_forms.cc.
 * All that is allocated has to come from these and to go back to them: with
 * headers in front of objects the first other one ends the program.
 */
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

extern "C" {
__attribute__((weak)) unsigned replaced_calls[8];
__attribute__((weak)) bool replaced_fails;
}

namespace {

struct base {
	virtual ~base() = default;
	long n = 0;
};

struct derived : base {
	std::string text = std::string(100, 'd');
};

#ifdef __cpp_aligned_new
struct alignas(256) wide {
	std::string text;
	~wide() {}
};
#endif

void
expressions()
{
	for (int i = 0; i < 300; i++) {
		base *volatile b = new derived;
		std::string *volatile s = new std::string[3];
		derived *volatile d = new (std::nothrow) derived;
		auto u = std::make_unique<std::string[]>(4);
		auto v = std::make_shared<derived>();
		std::vector<std::string> w(20, std::string(50, 'w'));

		w.resize(100);
		w.insert(w.begin(), std::string((std::size_t)i, 'm'));
		delete b;
		delete[] s;
		delete d;
#ifdef __cpp_aligned_new
		wide *volatile x = new wide;
		wide *volatile y = new wide[2];
		delete x;
		delete[] y;
#endif
	}
}

} /* namespace */

int
main(int argc, char **argv)
{
	int failures = 0;

	std::memset(replaced_calls, 0, sizeof(replaced_calls));
	expressions();
	if (argc > 1 && replaced_calls[0] != replaced_calls[1]) {
		std::fprintf(stderr, "%u new, %u delete\n", replaced_calls[0],
		    replaced_calls[1]);
		failures++;
	}
	for (const char *c = argc > 1 ? argv[1] : ""; *c != '\0'; c++)
		if (replaced_calls[*c - '0'] < 300) {
			std::fprintf(stderr, "operator %c is not called\n", *c);
			failures++;
		}
	return failures != 0;
}
