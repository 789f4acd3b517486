/*
 * One of C++'s operators, as a program may replace it: number OP of those
 * in replaced_operators.cc.  With PAIRED its counterpart is replaced as
 * well, and there is a header in front of each object, so that whoever
 * misses one of the two is found.
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {
/* One for the process, wherever the operators are. */
__attribute__((weak)) unsigned replaced_calls[8];
__attribute__((weak)) bool replaced_fails;
}

namespace {

#ifdef PAIRED
const bool paired = true;
#else
const bool paired = false;
#endif

const char *const marks[] = { "one", "array", "aligned", "aligned array" };

/* The header, as long as an alignment that is at least 32. */
std::size_t
header(std::size_t align)
{
	return !paired ? 0 : align < 32 ? 32 : align;
}

__attribute__((unused)) void *
make(std::size_t size, std::size_t align)
{
	std::size_t before = header(align);

	replaced_calls[OP]++;
	if (replaced_fails)
		throw 4711;
	if (align < 32)
		align = 32;
	size = (size + before + align) / align * align;
	char *p = static_cast<char *>(std::aligned_alloc(align, size));
	if (p == nullptr)
		throw std::bad_alloc();
	if (paired)
		std::strcpy(p + before - 16, marks[OP / 2]);
	return p + before;
}

__attribute__((unused)) void
drop(void *object, std::size_t align)
{
	char *p = static_cast<char *>(object);

	replaced_calls[OP]++;
	if (p == nullptr)
		return;
	if (paired && std::strcmp(p - 16, marks[OP / 2]) != 0) {
		std::fprintf(stderr, "delete %d of what new did not make\n",
		    OP);
		std::_Exit(4);
	}
	if (paired)
		std::strcpy(p - 16, "gone");
	std::free(p - header(align));
}

} /* namespace */

#if OP == 0
void *operator new(std::size_t n) { return make(n, 1); }
#elif OP == 1
void operator delete(void *p) noexcept { drop(p, 1); }
#elif OP == 2
void *operator new[](std::size_t n) { return make(n, 1); }
#elif OP == 3
void operator delete[](void *p) noexcept { drop(p, 1); }
#elif OP == 4
void *
operator new(std::size_t n, std::align_val_t a)
{
	return make(n, static_cast<std::size_t>(a));
}
#elif OP == 5
void
operator delete(void *p, std::align_val_t a) noexcept
{
	drop(p, static_cast<std::size_t>(a));
}
#elif OP == 6
void *
operator new[](std::size_t n, std::align_val_t a)
{
	return make(n, static_cast<std::size_t>(a));
}
#else
void
operator delete[](void *p, std::align_val_t a) noexcept
{
	drop(p, static_cast<std::size_t>(a));
}
#endif
