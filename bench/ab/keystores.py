"""Stores of keys and values in memory, redis and memcached, asked over a
socket: every key is written several times, each time a value of another
size, then nine tenths of the keys are deleted at random."""

import functools
import os
import random
import socket

from ab.server import Server, user

KEYS = 150000
WRITES = 3  # of each key, each time of another size
LEAST, MOST = 10, 2000  # bytes of a value
BATCH = 500  # commands on the way at once, twice


class Connection:
    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.waiting = 0

    def send(self, commands):
        """A batch, while the one before it is being answered: `waiting`
        is below 0 where answers to this one came with those."""
        self.socket.sendall(b"".join(commands))
        self.drain()
        self.waiting += len(commands)

    def drain(self):
        """Read one line for each command on the way."""
        last = b"\n"
        while self.waiting > 0:
            last = self.socket.recv(1 << 16)
            if not last:
                raise OSError("the server closed the connection")
            if last.startswith((b"-", b"ERROR", b"SERVER_ERROR",
                                b"CLIENT_ERROR")):
                raise OSError(last.decode("utf-8", "replace"))
            self.waiting -= last.count(b"\n")
        return last


@functools.lru_cache(1)
def plan(keys):
    """The keys in random orders, with sizes: for each time that all are
    written, and once more for the deletion."""
    rng = random.Random(1)
    found = []
    for _ in range(WRITES + 1):
        order = [b"key:%d" % k for k in range(keys)]
        rng.shuffle(order)
        found.append((order, rng.choices(range(LEAST, MOST + 1), k=keys)))
    return found


class KeyStore(Server):
    """What both have.  A link is a list of connections, which take turns."""

    amount = KEYS
    connections = 1

    @staticmethod
    def write(key, value):
        """The command, in bytes."""
        raise NotImplementedError

    @staticmethod
    def erase(key):
        raise NotImplementedError

    @staticmethod
    def keys_of(link):
        """How many keys the server says it has."""
        raise NotImplementedError

    def connect(self, folder, timeout):
        return [Connection(os.path.join(folder, "socket"), timeout)
                for _ in range(self.connections)]

    @staticmethod
    def send(link, batches):
        for n, batch in enumerate(batches):
            link[n % len(link)].send(batch)
        for one in link:
            one.drain()

    def prepare(self, amount):
        plan(amount)

    def load(self, link, amount):
        values = {n: b"v" * n for n in range(LEAST, MOST + 1)}
        for order, sizes in plan(amount)[:WRITES]:
            self.send(link, (
                [self.write(k, values[n]) for k, n in zip(
                    order[at:at + BATCH], sizes[at:at + BATCH])]
                for at in range(0, amount, BATCH)))
        return WRITES * amount

    def shrink(self, link, amount):
        gone = plan(amount)[WRITES][0][:amount * 9 // 10]
        self.send(link, ([self.erase(k) for k in gone[at:at + BATCH]]
                         for at in range(0, len(gone), BATCH)))

    def ask(self, link):
        self.send(link[:1], [[self.write(b"one", b"v" * LEAST)]])

    def check(self, link, amount):
        if self.keys_of(link) != amount - amount * 9 // 10 + 1:
            raise OSError("not all keys that were deleted are gone")


def word(text):
    """A word of a command in redis' protocol."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


class Redis(KeyStore):
    programs = ("redis-server",)
    foreign = b"mallocx"  # of version 8 where it is built with jemalloc

    def command(self, folder):
        return ["redis-server", "--port", "0", "--unixsocket",
                os.path.join(folder, "socket"), "--save", "", "--appendonly",
                "no", "--dir", folder, "--daemonize", "no"]

    @staticmethod
    def write(key, value):
        return b"*3\r\n" + word(b"SET") + word(key) + word(value)

    @staticmethod
    def erase(key):
        return b"*2\r\n" + word(b"DEL") + word(key)

    @staticmethod
    def keys_of(link):
        link[0].send([b"*1\r\n" + word(b"DBSIZE")])
        return int(link[0].drain()[1:])


class Memcached(KeyStore):
    """Two threads, and four connections that keep both busy.  Values are in
    its own slabs: of these a deletion gives nothing back."""

    programs = ("memcached",)
    connections = 4

    def command(self, folder):
        return ["memcached", "-s", os.path.join(folder, "socket"), "-t", "2",
                "-m", "1024", "-u", user()]

    @staticmethod
    def write(key, value):
        return b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value)

    @staticmethod
    def erase(key):
        return b"delete %s\r\n" % key

    @staticmethod
    def keys_of(link):
        said = b""
        link[0].socket.sendall(b"stats\r\n")
        while not said.endswith(b"END\r\n"):
            more = link[0].socket.recv(1 << 16)
            if not more:
                raise OSError("the server closed the connection")
            said += more
        return int(said.partition(b"STAT curr_items ")[2].split()[0])
