"""mariadbd, with sysbench's mixed transactions."""

import os
import re
import shutil
import subprocess
import tempfile

from ab import runner
from ab.server import Server, client, connected, find, user

TABLES, ROWS, THREADS = 8, 10000, 4
WARM_UP = 400  # transactions
MAKE = 300  # seconds, at most, for each step of the data directory


class MariaDB(Server):
    """The data directory is made once and copied for each run.  A link is
    the socket's path and the time limit."""

    programs = ("mariadbd", "mariadb-install-db", "mariadb", "sysbench")
    amount = 3000
    made = None

    @staticmethod
    def sysbench(link, step, *more):
        path, timeout = link
        return client(
            [find("sysbench"), "oltp_read_write", "--db-driver=mysql",
             f"--tables={TABLES}", f"--table-size={ROWS}",
             f"--threads={THREADS}", "--mysql-user=root",
             "--mysql-db=sbtest", f"--mysql-socket={path}",
             "--rand-seed=1", *more, step], timeout)

    @staticmethod
    def say(link, statement):
        path, timeout = link
        client([find("mariadb"), "--no-defaults", "-u", "root", "-S", path,
                "-e", statement], timeout)

    def server(self, folder):
        """mariadbd on the data directory in `folder`."""
        return ["mariadbd", "--no-defaults", f"--user={user()}",
                "--datadir=" + os.path.join(folder, "data"),
                "--socket=" + os.path.join(folder, "socket"),
                "--pid-file=" + os.path.join(folder, "pid"),
                "--skip-networking", "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M",
                "--innodb-flush-log-at-trx-commit=0"]

    def prepare(self, amount):
        if self.made:
            return
        folder = tempfile.TemporaryDirectory(prefix="hz4-bench-")
        client([find("mariadb-install-db"), "--no-defaults",
                "--datadir=" + os.path.join(folder.name, "data"),
                "--auth-root-authentication-method=normal",
                "--skip-test-db", f"--user={user()}"], MAKE)
        argv = self.server(folder.name)
        with subprocess.Popen(
                [find(argv[0])] + argv[1:], env=runner.environment(None),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True) as child:
            try:
                link = connected(self, folder.name, child, MAKE)
                self.say(link, "create database sbtest")
                self.sysbench(link, "prepare")
                self.say(link, "shutdown")
                child.wait(MAKE)
            except subprocess.TimeoutExpired:
                raise TimeoutError("mariadbd does not end")
            finally:
                child.kill()
        self.made = folder

    def command(self, folder):
        shutil.copytree(os.path.join(self.made.name, "data"),
                        os.path.join(folder, "data"))
        return self.server(folder)

    def connect(self, folder, timeout):
        link = os.path.join(folder, "socket"), timeout
        if not os.path.exists(link[0]):
            raise OSError("mariadbd has no socket yet")
        self.ask(link)
        return link

    def transactions(self, link, number):
        said = self.sysbench(link, "run", f"--events={number}", "--time=0")
        found = re.search(r"transactions:\s+(\d+)", said)
        if not found or int(found.group(1)) != number:
            raise OSError("sysbench made other transactions than asked for")

    def warm_up(self, link):
        self.transactions(link, WARM_UP)

    def load(self, link, amount):
        self.transactions(link, amount)
        return amount

    def ask(self, link):
        self.say(link, "select count(*) from mysql.user")
