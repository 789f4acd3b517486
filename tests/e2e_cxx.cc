/*
 * C++ on the allocator: every form of operator new and delete, the
 * new_handler loop, exceptions, and what the standard library does with
 * memory.  Counts what is wrong and leaves with status 1 if anything is.
 */
#include "e2e_common.h"

#include <atomic>
#include <deque>
#include <future>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <queue>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

/* clang declares the sized forms only when asked to use them. */
void operator delete(void *, std::size_t) noexcept;
void operator delete[](void *, std::size_t) noexcept;
void operator delete(void *, std::size_t, std::align_val_t) noexcept;
void operator delete[](void *, std::size_t, std::align_val_t) noexcept;

namespace {

std::atomic<unsigned> failures;

#define CHECK(cond)							\
	do {								\
		if (!(cond)) {						\
			e2e_say("%s:%d: %s is not so\n", __FILE__,	\
			    __LINE__, #cond);				\
			failures++;					\
		}							\
	} while (0)

using std::align_val_t;
using std::nothrow;
using std::size_t;

/* Numbers that the compiler cannot see through. */
volatile size_t opaque;

size_t
hide(size_t n)
{
	opaque = n;
	return opaque;
}

/* --- all forms ---------------------------------------------------------- */

struct form {
	const char *name;
	void *(*make)(size_t n, size_t a);
	void (*drop)(void *p, size_t n, size_t a);
	bool throws;
	bool aligned;
};

#define MAKE(expr)							\
	[](size_t n, size_t a) -> void * {				\
		(void)a;						\
		return expr;						\
	}
#define DROP(expr)							\
	[](void *p, size_t n, size_t a) {				\
		(void)n;						\
		(void)a;						\
		expr;							\
	}

const form forms[] = {
	{ "new, delete", MAKE(::operator new(n)), DROP(::operator delete(p)),
	    true, false },
	{ "new, sized", MAKE(::operator new(n)),
	    DROP(::operator delete(p, n)), true, false },
	{ "new, nothrow delete", MAKE(::operator new(n)),
	    DROP(::operator delete(p, nothrow)), true, false },
	{ "nothrow, delete", MAKE(::operator new(n, nothrow)),
	    DROP(::operator delete(p)), false, false },
	{ "nothrow, sized", MAKE(::operator new(n, nothrow)),
	    DROP(::operator delete(p, n)), false, false },
	{ "new[], delete[]", MAKE(::operator new[](n)),
	    DROP(::operator delete[](p)), true, false },
	{ "new[], sized", MAKE(::operator new[](n)),
	    DROP(::operator delete[](p, n)), true, false },
	{ "nothrow[], nothrow delete[]", MAKE(::operator new[](n, nothrow)),
	    DROP(::operator delete[](p, nothrow)), false, false },
	{ "aligned", MAKE(::operator new(n, align_val_t(a))),
	    DROP(::operator delete(p, align_val_t(a))), true, true },
	{ "aligned, sized", MAKE(::operator new(n, align_val_t(a))),
	    DROP(::operator delete(p, n, align_val_t(a))), true, true },
	{ "aligned nothrow", MAKE(::operator new(n, align_val_t(a), nothrow)),
	    DROP(::operator delete(p, align_val_t(a), nothrow)), false, true },
	{ "aligned[]", MAKE(::operator new[](n, align_val_t(a))),
	    DROP(::operator delete[](p, align_val_t(a))), true, true },
	{ "aligned[], sized", MAKE(::operator new[](n, align_val_t(a))),
	    DROP(::operator delete[](p, n, align_val_t(a))), true, true },
	{ "aligned[] nothrow",
	    MAKE(::operator new[](n, align_val_t(a), nothrow)),
	    DROP(::operator delete[](p, align_val_t(a), nothrow)), false,
	    true },
};

const size_t sizes[] = { 0, 1, 8, 15, 16, 17, 24, 40, 64, 100, 256, 1000,
	2048, 2049, 5000, 32768, 65536, 65537, 100000, 1000000, 5000000 };

void
one_form(const form &f, size_t a)
{
	std::size_t count = sizeof(sizes) / sizeof(sizes[0]);
	void *p[sizeof(sizes) / sizeof(sizes[0])];

	for (size_t i = 0; i < count; i++) {
		size_t n = sizes[i];

		p[i] = f.make(hide(n), hide(a));
		CHECK(p[i] != nullptr);
		CHECK(e2e_aligned(p[i], f.aligned && a > 16 ? a : 16));
		CHECK(malloc_usable_size(p[i]) >= n);
		e2e_fill(p[i], n, i);
		for (size_t j = 0; j < i; j++)
			CHECK(p[i] != p[j]);
	}
	for (size_t i = 0; i < count; i++) {
		CHECK(e2e_differs(p[i], sizes[i], i) == E2E_SAME);
		errno = 4711;
		f.drop(p[i], hide(sizes[i]), hide(a));
		CHECK(errno == 4711);
	}
	f.drop(nullptr, 0, a);
}

void
all_forms()
{
	for (const form &f : forms)
		for (size_t a = 16; a <= (f.aligned ? 1 << 20 : 16); a *= 4)
			one_form(f, a);
}

/* malloc's blocks and new's are one heap, whatever standards say. */
void
one_heap()
{
	for (size_t n : sizes) {
		e2e_free(::operator new(hide(n)));
		::operator delete(e2e_malloc(hide(n)));
		::operator delete(e2e_memalign(64, hide(n)), align_val_t(64));
		e2e_free(::operator new[](hide(n), align_val_t(4096)));
	}
}

/* --- failure ------------------------------------------------------------ */

unsigned handler_calls;

/* Called three times, then gone: the loop has to end in bad_alloc. */
void
counting_handler()
{
	if (++handler_calls == 3)
		std::set_new_handler(nullptr);
}

struct own_error {
	int code;
};

void
throwing_handler()
{
	throw own_error{ 42 };
}

const size_t impossible[] = { SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4096,
	static_cast<size_t>(PTRDIFF_MAX) + 1,
#if SIZE_MAX > UINT32_MAX
	/* In a process of 32 bits there may be room for these. */
	PTRDIFF_MAX, static_cast<size_t>(1) << 50,
#endif
};

/* No memory of this form, and bad_alloc if the form has it. */
void
refused(const form &f, size_t n)
{
	bool threw = false;
	void *p = nullptr;

	try {
		p = f.make(hide(n), hide(64));
	} catch (const std::bad_alloc &) {
		threw = true;
	}
	CHECK(p == nullptr);
	CHECK(threw == f.throws);
}

void
refusal(const form &f, size_t n)
{
	bool threw = false;
	void *p = nullptr;

	handler_calls = 0;
	std::set_new_handler(counting_handler);
	refused(f, n);
	CHECK(handler_calls == 3);
	CHECK(std::get_new_handler() == nullptr);

	std::set_new_handler(throwing_handler);
	try {
		p = f.make(hide(n), hide(64));
	} catch (const own_error &e) {
		threw = e.code == 42;
	}
	CHECK(p == nullptr);
	CHECK(threw == f.throws);
	std::set_new_handler(nullptr);
	refused(f, n);
}

void
refusals()
{
	for (const form &f : forms)
		for (size_t n : impossible)
			/* libstdc++ rounds n up to the alignment: to 0. */
			if (!f.aligned || n + 63 > n || !e2e_is_libc())
				refusal(f, n);
	bool threw = false;
	try {
		char (*volatile p)[1000] =
		    new char[hide(SIZE_MAX / 500)][1000];
		delete[] p;
	} catch (const std::bad_alloc &) {
		threw = true;
	}
	CHECK(threw);
#if SIZE_MAX > UINT32_MAX
	threw = false;
	try {
		std::string s(hide(std::string().max_size()), 'x');
		opaque = s.size();
	} catch (const std::bad_alloc &) {
		threw = true;
	}
	CHECK(threw);
#endif
}

void *reserve;

void
reserve_handler()
{
	handler_calls++;
	if (reserve == nullptr)
		throw std::bad_alloc();
	e2e_free(reserve);
	reserve = nullptr;
}

/* Run a function in a child, where limits may be set; it must end well. */
void
in_a_child(const char *name, void (*what)())
{
	pid_t pid = fork();

	if (pid == 0) {
		failures = 0;
		what();
		_exit(failures == 0 ? 0 : 1);
	}
	int status = e2e_reap(pid, 30000);
	if (status != 0) {
		e2e_say("%s: wait status %d\n", name, status);
		failures++;
	}
}

/*
 * Allocate until the handler has had to give up a reserve of 64 MiB, and
 * then `more` bytes, which have to come out of what it gave.
 */
void
from_the_reserve(size_t block, size_t more)
{
	std::vector<void *> got;
	struct rlimit r;
	size_t since = 0;

	got.reserve(128 * E2E_MIB / block);
	reserve = e2e_malloc(64 * E2E_MIB);
	CHECK(reserve != nullptr);
	memset(reserve, 1, 64 * E2E_MIB);
	r.rlim_cur = r.rlim_max = e2e_vsize() + 8 * E2E_MIB;
	CHECK(setrlimit(RLIMIT_AS, &r) == 0);
	handler_calls = 0;
	std::set_new_handler(reserve_handler);
	try {
		while (handler_calls == 0 || since < more) {
			got.push_back(::operator new(hide(block)));
			memset(got.back(), 2, block);
			if (handler_calls != 0)
				since += block;
		}
	} catch (const std::bad_alloc &) {
		e2e_say("only %zu bytes of the reserve were used\n", since);
	}
	CHECK(since >= more);
	CHECK(handler_calls == 1);
	for (void *p : got)
		::operator delete(p);
}

void
handler_saves_a_large_block()
{
	from_the_reserve(40 * E2E_MIB, 40 * E2E_MIB);
}

void
handler_saves_many_blocks()
{
	from_the_reserve(100000, 40 * E2E_MIB);
}

void
handler_saves_small_blocks()
{
	from_the_reserve(480, 40 * E2E_MIB);
}

/* Out of memory for real: bad_alloc arrives, and later all is well again. */
void
exhaustion()
{
	static void *chain;
	struct rlimit r;
	unsigned rounds = 0;

	r.rlim_cur = r.rlim_max = e2e_vsize() + 64 * E2E_MIB;
	CHECK(setrlimit(RLIMIT_AS, &r) == 0);
	for (; rounds < 3; rounds++) {
		size_t n = 0;
		bool threw = false;

		try {
			for (;; n++) {
				void **p = static_cast<void **>(
				    ::operator new(hide(rounds == 1 ? 200 :
				    70000)));

				*p = chain;
				chain = p;
			}
		} catch (const std::bad_alloc &) {
			threw = true;
		}
		CHECK(threw);
		CHECK(n > 100);
		while (chain != nullptr) {
			void **p = static_cast<void **>(chain);

			chain = *p;
			::operator delete(p);
		}
	}
	std::vector<std::string> v;
	for (int i = 0; i < 1000; i++)
		v.push_back(std::string(1000, 'a'));
	CHECK(v[999].size() == 1000);
}

/* --- exceptions --------------------------------------------------------- */

struct alignas(128) picky {
	char bytes[300];
	explicit picky(int n)
	{
		if (n % 3 == 0)
			throw std::runtime_error("no " + std::to_string(n));
		bytes[0] = 1;
	}
};

void
throwing_constructors(int rounds)
{
	int thrown = 0;

	for (int i = 0; i < rounds; i++) {
		try {
			std::unique_ptr<picky> p(new picky(i));

			CHECK(e2e_aligned(p.get(), 128));
		} catch (const std::exception &e) {
			CHECK(std::string(e.what()) ==
			    "no " + std::to_string(i));
			thrown++;
		}
	}
	CHECK(thrown == (rounds + 2) / 3);
}

void
exceptions()
{
	std::vector<std::thread> threads;

	for (int i = 0; i < 4; i++)
		threads.emplace_back(throwing_constructors, 5000);
	for (std::thread &t : threads)
		t.join();
	std::future<int> f = std::async(std::launch::async, [] {
		throw std::out_of_range("from another thread");
		return 1;
	});
	bool threw = false;
	try {
		f.get();
	} catch (const std::out_of_range &e) {
		threw = std::string(e.what()) == "from another thread";
	}
	CHECK(threw);
	std::exception_ptr kept;
	std::thread([&kept] {
		try {
			throw std::string(5000, 'x');
		} catch (...) {
			kept = std::current_exception();
		}
	}).join();
	try {
		std::rethrow_exception(kept);
	} catch (const std::string &s) {
		CHECK(s == std::string(5000, 'x'));
	}
}

/* --- the standard library ----------------------------------------------- */

std::string
name_of(uint64_t n)
{
	return "key-" + std::to_string(n) + std::string(n % 90, '.');
}

void
containers(uint64_t stream)
{
	e2e_rng r = e2e_rng_start(e2e_seed(), stream);
	std::map<std::string, std::vector<std::string>> ordered;
	std::unordered_map<uint64_t, std::unique_ptr<std::string>> hashed;
	std::list<std::deque<int>> queues;

	for (int i = 0; i < 20000; i++) {
		uint64_t k = e2e_below(&r, 2000);

		ordered[name_of(k)].push_back(name_of(k + 1));
		hashed[k] = std::make_unique<std::string>(name_of(k));
		if (k % 3 == 0) {
			ordered.erase(name_of(e2e_below(&r, 2000)));
			hashed.erase(e2e_below(&r, 2000));
		}
		if (k % 16 == 0)
			queues.emplace_back(k, 7);
		if (queues.size() > 50)
			queues.pop_front();
	}
	for (const auto &[key, values] : ordered) {
		uint64_t k = strtoull(key.c_str() + 4, nullptr, 10);

		CHECK(key == name_of(k));
		for (const std::string &v : values)
			CHECK(v == name_of(k + 1));
	}
	for (const auto &[key, value] : hashed)
		CHECK(*value == name_of(key));
	for (const auto &q : queues)
		CHECK(q.empty() || q.back() == 7);
}

void
workloads()
{
	std::vector<std::thread> threads;

	for (uint64_t i = 0; i < 3; i++)
		threads.emplace_back(containers, i);
	containers(100);
	for (std::thread &t : threads)
		t.join();
	std::vector<int> grown;
	for (int i = 0; i < 3000000; i++)
		grown.push_back(i);
	for (int i = 0; i < 3000000; i += 1001)
		CHECK(grown[static_cast<size_t>(i)] == i);
}

/* Strings made in one thread die in another. */
void
hand_over()
{
	std::queue<std::shared_ptr<std::string>> q;
	std::mutex m;
	std::atomic<int> open{ 2 };
	auto produce = [&](uint64_t base) {
		for (uint64_t i = 0; i < 30000; i++) {
			auto s = std::make_shared<std::string>(
			    name_of(base + i));
			std::lock_guard<std::mutex> hold(m);
			q.push(std::move(s));
		}
		open--;
	};
	uint64_t got = 0;
	auto consume = [&] {
		for (;;) {
			bool last = open == 0;
			std::shared_ptr<std::string> s;
			{
				std::lock_guard<std::mutex> hold(m);

				if (!q.empty()) {
					s = q.front();
					q.pop();
				}
			}
			if (s == nullptr && last)
				return;
			if (s == nullptr) {
				std::this_thread::yield();
				continue;
			}
			CHECK(*s == name_of(strtoull(s->c_str() + 4, nullptr,
			    10)));
			got++;
		}
	};
	std::thread a(produce, 0);
	std::thread b(produce, 1000000);
	std::thread c(consume);
	a.join();
	b.join();
	c.join();
	CHECK(got == 60000);
}

/* --- thread_local objects and statics ----------------------------------- */

/* Its destructor runs when the thread's caches may already be gone. */
struct late {
	std::vector<std::string> kept;
	~late()
	{
		std::map<int, std::string> m;

		for (int i = 0; i < 100; i++)
			m[i] = name_of(static_cast<uint64_t>(i));
		for (int i = 0; i < 100; i++)
			CHECK(m[i] == name_of(static_cast<uint64_t>(i)));
		kept.clear();
	}
};

thread_local late of_thread;
late of_process;

void
late_destructors()
{
	of_process.kept.assign(1000, std::string(100, 'p'));
	for (int i = 0; i < 500; i++)
		std::thread([] {
			of_thread.kept.assign(20, std::string(200, 't'));
		}).join();
	of_thread.kept.assign(1000, std::string(300, 'm'));
}

} /* namespace */

int
main()
{
	all_forms();
	one_heap();
	refusals();
	/* qemu-user says yes to a limit of address space and forgets it. */
	if (!e2e_emulated()) {
		in_a_child("large block from the handler",
		    handler_saves_a_large_block);
		in_a_child("many blocks from the handler",
		    handler_saves_many_blocks);
		in_a_child("small blocks from the handler",
		    handler_saves_small_blocks);
		in_a_child("exhaustion", exhaustion);
	}
	exceptions();
	workloads();
	hand_over();
	late_destructors();
	if (failures != 0)
		e2e_say("%u failures, HZ4_TEST_SEED=%llu\n", failures.load(),
		    static_cast<unsigned long long>(e2e_seed()));
	return failures == 0 ? 0 : 1;
}
