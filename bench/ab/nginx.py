"""nginx as a proxy of itself, with three kinds of requests at a time: large
bodies that are passed on, answers that it compresses, and small files."""

import http.client
import os
import re
import socket
import subprocess

from ab import runner
from ab.server import Server, find

CONNECTIONS = 16  # of each kind
BODY, LONG, SHORT = 60000, 120000, 2000	  # bytes
# Of a hundred requests; the kinds take about as long as each other.
SHARES = (("body", 15), ("long", 10), ("short", 75))

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 200; }}
http {{
	access_log off;
	client_body_temp_path temp;
	proxy_temp_path temp;
	fastcgi_temp_path temp;
	uwsgi_temp_path temp;
	scgi_temp_path temp;
	client_body_buffer_size 64k;
	proxy_buffers 16 8k;
	gzip on;
	gzip_types text/plain;
	keepalive_requests 50;
	server {{
		listen 127.0.0.1:{port};
		root {folder}/files;
		default_type text/plain;
		location /again/ {{ proxy_pass http://127.0.0.1:{port}/; }}
		location /taken {{ return 200 "taken\\n"; }}
	}}
}}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Nginx(Server):
    """One process, so that its figures are those of all of it."""

    programs = ("nginx", "ab")
    amount = 20000

    def command(self, folder):
        self.port = free_port()
        self.folder = folder
        for name in ("files", "temp", "logs"):
            os.mkdir(os.path.join(folder, name))
        line = b"%d of many lines, and %d in another order\n"
        text = b"".join(line % (i, i * 7919 % 10007) for i in range(5000))
        for name, size in (("long", LONG), ("short", SHORT), ("body", BODY)):
            with open(os.path.join(folder, "files", name), "wb") as out:
                out.write(text[:size])
        with open(os.path.join(folder, "conf"), "w", encoding="ascii") as out:
            out.write(CONFIGURATION.format(folder=folder, port=self.port))
        return ["nginx", "-p", folder, "-e", "stderr", "-c",
                os.path.join(folder, "conf")]

    def connect(self, folder, timeout):
        """The time limit is all that there is of a link."""
        self.get("/short", timeout)
        return timeout

    def get(self, path, timeout):
        link = http.client.HTTPConnection("127.0.0.1", self.port,
                                          timeout=timeout)
        try:
            link.request("GET", path)
            if link.getresponse().status != 200:
                raise OSError(f"GET {path} fails")
        except http.client.HTTPException as problem:
            raise OSError(f"GET {path}: {problem!r}")
        finally:
            link.close()

    def client(self, kind, requests):
        """A client of one kind, started."""
        url = f"http://127.0.0.1:{self.port}/"
        more = {"body": ["-p", os.path.join(self.folder, "files", "body"),
                         "-T", "text/plain", url + "again/taken"],
                "long": ["-H", "Accept-Encoding: gzip", url + "again/long"],
                "short": [url + "short"]}[kind]
        return subprocess.Popen(
            [find("ab"), "-q", "-k", "-r", "-n", str(requests), "-c",
             str(CONNECTIONS)] + more, env=runner.environment(None),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)

    def load(self, link, amount):
        clients = [(max(amount * share // 100, CONNECTIONS), kind)
                   for kind, share in SHARES]
        started = [(n, self.client(kind, n)) for n, kind in clients]
        try:
            for requests, one in started:
                try:
                    said = one.communicate(timeout=link)[0]
                except subprocess.TimeoutExpired:
                    raise TimeoutError("no end within the time limit")
                found = dict(re.findall(r"^(.*\S):\s+(\d+)", said, re.M))
                if int(found.get("Complete requests", 0)) != requests or \
                        int(found.get("Failed requests", 1)) or \
                        "Non-2xx responses" in found:
                    raise OSError("requests failed: "
                                  + said.strip().split("\n")[-1])
        finally:
            for _, one in started:
                one.kill()
                one.wait()
        return sum(requests for requests, _ in started)

    def ask(self, link):
        self.get("/short", link)
