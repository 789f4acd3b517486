/*
 * A program with a new_handler that gives up its cache when memory is short,
 * and in the end has to hear bad_alloc.
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <sys/resource.h>
#include <vector>

namespace {

std::vector<char *> cache;
unsigned calls;

void
give_up_cache()
{
	calls++;
	if (cache.empty())
		throw std::bad_alloc();
	for (char *p : cache)
		delete[] p;
	cache.clear();
}

std::size_t
address_space()
{
	std::FILE *f = std::fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	if (f == nullptr || std::fscanf(f, "%lu", &pages) != 1)
		std::exit(2);
	std::fclose(f);
	return pages * 4096;
}

} /* namespace */

int
main()
{
	std::vector<std::string *> strings;
	bool thrown = false;
	bool saved = false;
	struct rlimit r;

	strings.reserve(100000);
	for (int i = 0; i < 400; i++) {
		cache.push_back(new char[100000]);
		std::memset(cache.back(), i, 100000);
	}
	r.rlim_cur = r.rlim_max = address_space() + (16 << 20);
	if (setrlimit(RLIMIT_AS, &r) != 0)
		return 2;
	std::set_new_handler(give_up_cache);
	try {
		for (int i = 0; i < 100000; i++) {
			strings.push_back(new std::string(20000, 'x'));
			saved = saved || calls == 1;
		}
	} catch (const std::bad_alloc &) {
		thrown = true;
	}
	std::printf("saved by the handler: %d, then bad_alloc: %d\n", saved,
	    thrown);
	for (std::string *s : strings)
		delete s;
	std::string last(5000000, 'y');
	std::printf("and on it goes: %zu\n", last.size());
	return saved && thrown ? 0 : 1;
}
