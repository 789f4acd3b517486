"""The servers that compare knows."""

from ab import server
from ab.keystores import Memcached, Redis
from ab.mariadb import MariaDB
from ab.nginx import Nginx

KNOWN = {"redis": Redis(), "memcached": Memcached(), "nginx": Nginx(),
         "mariadb": MariaDB()}


def missing(name):
    """A program that is not installed, or None."""
    return server.missing(KNOWN[name])


def run(name, amount, lib, timeout, extra_env=None):
    """One run of the server as a row."""
    return server.run(KNOWN[name], amount, lib, timeout, extra_env)
