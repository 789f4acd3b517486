"""hz4 POINTER: what a pointer is, for gdb, in a process or a core file.

Load it with "source hz4-gdb.py" or gdb's option -x.  It needs neither hz4's
debugging information nor its symbols: the library's note leads to all that it
reads (src/view.h, whose structures are repeated below).
"""

import re
import struct

import gdb

LAYOUT = 1
HEAD_BYTES = 4096  # of an object: its headers and notes
MOST_CLASSES = 256
MOST = 1 << 18  # caches, or pages back to a large object's start
WORDS = "schema classes run marked page_shift leaf_shift class_unit unused"
# Names of numbers, and with a * of addresses and sizes.
VIEW = (
    "ready *threads *l1 *meta *large *samples *guards mapped free_pages "
    "dirty_pages purged os_page size slots spans last_shard *shard_stride "
    "cache_net "
    "cache_top cache_base cache_gone *cache_bytes root leaf_class leaf_owner "
    "*zeros span_start span_bits large_start large_bytes large_asked "
    "large_site *options *file"
)
PARTS = {
    "threads": "caches older bare_net",
    "l1": "all end net count array *bytes",
    "samples": "objects start cls sites sizes depth frames",
    "guards": "mapped objects bytes pool slots object size state depth "
    "frames *slot_count *slot_bytes",
}


class Fields:
    """One of the structures, by the names of its members."""


class Number:
    """Where a number is, or an array of them."""

    def __init__(self, heap, at, stride, width):
        if width > 8:
            raise gdb.GdbError("hz4: the process's figures are none")
        self.heap, self.at, self.stride, self.width = heap, at, stride, width

    def get(self, base=0, i=0):
        """That of index i, of a structure that begins at base."""
        at = (base + self.at + i * self.stride) & self.heap.most
        return self.heap.unsigned(at, self.width)


class Heap:
    """What the view of the process tells."""

    def __init__(self, at, head):
        self.wide = head[4] == 2
        self.most = (1 << (64 if self.wide else 32)) - 1
        self.order = "<" if head[5] == 1 else ">"
        magic, layout, length, version = struct.unpack(
            self.order + "8sII24s", read(at, 40)
        )
        if magic != b"hz4view\0" or layout != LAYOUT:
            raise gdb.GdbError("hz4: another version than this script's")
        self.version = version.split(b"\0")[0].decode("ascii", "replace")
        words = struct.unpack(self.order + "8I", read(at + 64, 32))
        self.__dict__.update(zip(WORDS.split(), words))
        if not (
            12 <= self.page_shift <= 30
            and self.page_shift < self.leaf_shift <= 40
            and 0 < self.class_unit <= 4096
            and 0 < self.classes <= MOST_CLASSES
        ):
            raise gdb.GdbError("hz4: the process's figures are none")
        self.fields(self, at + 96, VIEW, at + length)
        for name, members in PARTS.items():
            part = Fields()
            self.fields(part, getattr(self, name), members)
            setattr(self, name, part)

    def fields(self, to, at, names, end=None):
        address = 8 if self.wide else 4
        for name in names.split():
            value = self.unsigned(at, address)
            at += address
            if name[0] != "*":
                stride = self.unsigned(at, 4)
                value = Number(self, value, stride, self.unsigned(at + 4, 4))
                at += 8
            setattr(to, name.lstrip("*"), value)
        if end is not None and at != end:
            raise gdb.GdbError("hz4: another version than this script's")

    def unsigned(self, at, width):
        order = "little" if self.order == "<" else "big"
        return int.from_bytes(read(at, width), order)


def read(at, length):
    return bytes(gdb.selected_inferior().read_memory(at, length))


# --- finding the view -------------------------------------------------------


def mappings():
    """The starts of mappings that may be those of objects' headers."""
    text = gdb.execute("info proc mappings", to_string=True)
    # Older versions of gdb indent the table, newer ones do not.
    number = r"\s+0x([0-9a-f]+)"
    for line in text.splitlines():
        found = re.match(number * 4 + r"\s+(?:[-rwxps]+\s+)?/", " " + line)
        if found and int(found.group(4), 16) == 0:
            yield int(found.group(1), 16)


def view_of(start, head):
    """The address of the view of the object at start, or None."""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    if wide:
        table, = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
    else:
        table, = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
    for i in range(count):
        at = table + i * size
        if at + size > len(head):
            break
        if wide:
            kind, _, offset, _, _, length = struct.unpack_from(
                order + "IIQQQQ", head, at
            )
        else:
            kind, offset, _, _, length = struct.unpack_from(
                order + "5I", head, at
            )
        notes = head[offset : offset + length] if kind == 4 else b""
        at = notes.find(struct.pack(order + "III", 4, 4, 1) + b"hz4\0")
        if at >= 0:
            at += 16
            return start + offset + at + struct.unpack_from(
                order + "i", notes, at
            )[0]
    return None


def find_heap():
    """The heap of the library whose malloc is called."""
    if gdb.selected_inferior().pid == 0:
        raise gdb.GdbError("hz4: no process, and no core file")
    last = wrong = None
    for start in mappings():
        try:
            head = read(start, HEAD_BYTES)
            if head[:4] != b"\x7fELF":
                continue
            at = view_of(start, head)
            if at is None:
                continue
            last = Heap(at, head)
        except (gdb.MemoryError, gdb.GdbError, struct.error) as error:
            wrong = error
            continue
        if last.ready.get() != 0:
            return last
    if last is None and isinstance(wrong, gdb.GdbError):
        raise wrong
    if last is None:
        raise gdb.GdbError("hz4: the program does not run on hz4")
    raise gdb.GdbError("hz4: the program has not allocated yet")


# --- what a pointer is ------------------------------------------------------


def page_of(heap, address):
    """Class and owner of the page at an address; None: not hz4's."""
    i = address >> heap.leaf_shift
    # The zeros lie behind the root.  No object is above what that covers.
    if i >= (heap.zeros - heap.root.at) // max(heap.root.stride, 1):
        return None
    distance = heap.root.get(0, i)
    if distance == 0:
        return None
    leaf = (heap.zeros + distance) & heap.most
    page = (address & ((1 << heap.leaf_shift) - 1)) >> heap.page_shift
    unit = heap.leaf_class.get(leaf, page)
    return unit // heap.class_unit, heap.leaf_owner.get(leaf, page)


def stack_lines(heap, site):
    """The frames of a sampled stack; its members are Fields of samples."""
    return frame_lines(heap.samples, site)


def frame_lines(part, base):
    lines = []
    for i in range(min(part.depth.get(base), 1024)):
        address = part.frames.get(base, i)
        name = gdb.execute("info symbol %#x" % (address - 1), to_string=True)
        name = name.split(" in section")[0].strip()
        where = gdb.find_pc_line(address - 1)
        if name.startswith("No symbol"):
            name = "?"
        if where.symtab is not None:
            name += " at %s:%d" % (where.symtab.filename, where.line)
        lines.append("    %#x %s" % (address, name))
    return lines


def within(address, start):
    """How far an address lies in its object, in words."""
    far = address - start
    return "its start" if far == 0 else "byte %d of it" % far


def cache_with(heap, cls, object_):
    """Where a class's free objects are kept and this is one, or None."""
    word = heap.cache_top.width
    cache = heap.threads.caches.get()
    for _ in range(MOST):
        if cache == 0:
            break
        top = heap.cache_top.get(cache, cls)
        base = heap.cache_base.get(cache, cls)
        if base != 0:
            base += heap.cache_gone.get(cache, cls) * word
            if holds(heap, base, top, object_):
                return "a thread's cache, (struct hz4_cache *)%#x" % cache
        cache = heap.threads.older.get(cache)
    for i in range(min(heap.l1.end.get(), MOST)):
        l1 = heap.l1.all.get(0, i)
        if l1 != 0:
            base = heap.l1.array.get(l1, cls)
            top = base + heap.l1.count.get(l1, cls) * word
            if base != 0 and holds(heap, base, top, object_):
                return "a CPU's cache, (struct hz4_l1 *)%#x" % l1
    return None


def holds(heap, base, top, object_):
    """Whether one of the pointers between two addresses is this."""
    if not base < top < base + (1 << 20):
        return False
    kind = "Q" if heap.wide else "I"
    size = 8 if heap.wide else 4
    text = read(base, (top - base) // size * size)
    return object_ in struct.unpack(
        "%s%d%s" % (heap.order, len(text) // size, kind), text
    )


def tell_span(heap, address, cls, span):
    size = heap.size.get(0, cls)
    start = heap.span_start.get(span)
    slot = (address - start) // size
    object_ = start + slot * size
    lines = []
    if slot >= heap.slots.get(0, cls):
        state = "behind the last object"
    elif heap.span_bits.get(span, slot // 64) >> slot % 64 & 1:
        state = "free, in its span"
    else:
        cache = cache_with(heap, cls, object_)
        state = "live" if cache is None else "free, in " + cache
    lines.append(
        "%#x: %s; an object of %d bytes at %#x, %s"
        % (address, state, size, object_, within(address, object_))
    )
    lines.append(
        "  span (struct hz4_span *)%#x, from %#x, %d objects, class %d"
        % (span, start, heap.slots.get(0, cls), cls)
    )
    return lines


def tell_sampled(heap, address, slab):
    part = heap.samples
    cls = part.cls.get(slab)
    size = heap.size.get(0, cls)
    start = part.start.get(slab)
    slot = (address - start) // size
    object_ = start + slot * size
    slots = heap.slots.get(0, cls)
    if slot >= slots:
        return ["%#x: behind the last object of sampled ones" % address]
    bits = slab + part.sites.at + slots * part.sites.stride
    word = heap.unsigned(bits + slot // 64 * 8, 8)
    site = part.sites.get(slab, slot)
    if not word >> slot % 64 & 1:
        return [
            "%#x: free; a slot of %d bytes at %#x for sampled objects"
            % (address, size, object_)
        ]
    lines = [
        "%#x: live; an object of %d bytes at %#x, %s"
        % (address, size, object_, within(address, object_))
    ]
    if site != 0:
        asked = part.sizes.get(slab, slot) & ((1 << 48) - 1)
        lines.append("  sampled: %d bytes were asked for, here:" % asked)
        lines += stack_lines(heap, site)
    return lines


def tell_guarded(heap, address):
    part = heap.guards
    best = None
    slots = part.slots.get()
    for i in range(min(part.slot_count, MOST)):
        slot = slots + i * part.slot_bytes
        start = part.object.get(slot)
        far = max(start - address, address - start - part.size.get(slot), 0)
        if part.state.get(slot) != 0 and (best is None or far < best[0]):
            best = far, slot, start
    if best is None:
        return ["%#x: between guards, where nothing was allocated" % address]
    far, slot, start = best
    state = "live" if part.state.get(slot) == 1 else "freed"
    if far > 0 or address == start + part.size.get(slot):
        state = "outside of its guarded object, which is " + state
    lines = [
        "%#x: %s; a guarded object of %d bytes at %#x"
        % (address, state, part.size.get(slot), start)
    ]
    lines.append("  allocated:")
    return lines + frame_lines(part, slot)


def tell_large(heap, address, owner):
    start = heap.large_start.get(owner)
    length = heap.large_bytes.get(owner)
    if address >= start + length:
        return None
    lines = [
        "%#x: live; a large object of %d bytes at %#x, %s"
        % (address, length, start, within(address, start)),
        "  (struct hz4_large *)%#x, %d bytes were asked for"
        % (owner, heap.large_asked.get(owner)),
    ]
    site = heap.large_site.get(owner)
    if site != 0:
        lines.append("  sampled, allocated here:")
        lines += stack_lines(heap, site)
    return lines


def tell_inside(heap, address):
    """For a page without a class: the large object before it, if any."""
    page = 1 << heap.page_shift
    at = address & ~(page - 1)
    for _ in range(MOST):
        at -= page
        if at < 0:
            break
        before = page_of(heap, at)
        if before is None:
            break
        if before[0] == heap.run:
            return tell_large(heap, address, before[1])
        if before[0] != 0:
            break
    return None


def tell(heap, address):
    page = page_of(heap, address)
    lines = None
    if page is not None:
        cls, owner = page
        if cls == heap.run:
            lines = tell_large(heap, address, owner)
        elif cls == heap.marked:
            guards = heap.guards
            pool = guards.pool.get()
            if 0 <= address - pool < guards.mapped.get():
                lines = tell_guarded(heap, address)
            else:
                lines = tell_sampled(heap, address, owner)
        elif cls == heap.classes - 1:
            lines = ["%#x: an object of no bytes, of malloc(0)" % address]
        elif cls != 0:
            lines = tell_span(heap, address, cls, owner)
        else:
            lines = tell_inside(heap, address)
    if lines is None:
        # The page map knows no more: the system may have had the page again.
        lines = ["%#x: in no object of hz4's heap" % address]
        if page is not None and page[1] != 0:
            lines[0] += "; pages that are free, or were given back"
    return lines


class Hz4Command(gdb.Command):
    """What a pointer is: hz4 POINTER

Tells whether it points to a live object, to a free one and where that is
kept, or to none; its size and span; and for a sampled or guarded object the
stack that allocated it."""

    def __init__(self):
        super().__init__("hz4", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("usage: hz4 POINTER")
        address = int(gdb.parse_and_eval("(unsigned long)(%s)" % argument))
        try:
            print("\n".join(tell(find_heap(), address)))
        except gdb.MemoryError as error:
            raise gdb.GdbError("hz4: %s" % error)


Hz4Command()
