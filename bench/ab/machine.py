"""What the figures depend on: the machine, and how a build was made."""

import hashlib
import os
import platform
import re
import subprocess
import sys

from ab import lanes


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return text.read()
    except OSError:
        return ""


def _find(pattern, text, default="unknown"):
    found = re.search(pattern, text, re.M)
    return found.group(1).strip() if found else default


def describe():
    """Pairs of a property and its value, for the report."""
    info = _read("/proc/cpuinfo")
    thp = _find(r"\[(\w+)\]", _read(
        "/sys/kernel/mm/transparent_hugepage/enabled"))
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/"
                     "scaling_governor").strip() or "not reported"
    flags = _find(r"^flags\s*:\s*(.*)$", info, "").split()
    memory = int(_find(r"^MemTotal:\s+(\d+)", _read("/proc/meminfo"), "0"))
    system = _find(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"))
    return [
        ("processor", _find(r"^model name\s*:\s*(.*)$", info,
                            platform.machine())),
        ("CPUs for this run", f"{lanes.cores()} of {os.cpu_count()}"
         + (", a virtual machine" if "hypervisor" in flags else "")),
        ("memory", f"{memory / 1048576:.1f} GiB"),
        ("system", f"{system}, Linux "
                   + _find(r"^([\d.]+\d)", platform.release()) + ", "
                   + " ".join(platform.libc_ver())),
        ("huge pages", thp),
        ("frequency governor", governor),
        ("load at the start", " ".join(
            f"{load:.2f}" for load in os.getloadavg())),
    ]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as library:
        for block in iter(lambda: library.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def shown(path):
    """A path for a report that others read: no more of it than helps."""
    if path is None:
        return "none"
    if path.startswith(("/usr/", "/lib", "/opt/")):
        return path
    here = os.path.relpath(path)
    if not here.startswith(".."):
        return here
    return os.path.join("...", *path.split(os.sep)[-3:])


# Names under which allocators tell their version.
ASK = """
import ctypes
lib = ctypes.CDLL(None)
for name in ("hz4_version", "tc_version", "mi_version"):
    call = getattr(lib, name, None)
    if call and name == "mi_version":
        n = call()
        print(f"{n // 10000}.{n // 100 % 100}.{n % 100}" if n > 9999 else
              f"{n // 100}.{n // 10 % 10}.{n % 10}")
    elif call:
        call.restype = ctypes.c_char_p
        call.argtypes = [ctypes.c_void_p] * 3
        print(call(None, None, None).decode().split()[-1])
if hasattr(lib, "mallctl"):
    text, size = ctypes.c_char_p(), ctypes.c_size_t(8)
    lib.mallctl(b"version", ctypes.byref(text), ctypes.byref(size), None, 0)
    print(text.value.decode().split("-")[0])
"""


def version(path):
    """What a library says of itself, else that of its package."""
    if path is None:
        return " ".join(platform.libc_ver()[1:]) or "unknown"
    try:
        said = subprocess.run(
            [sys.executable, "-I", "-c", ASK], capture_output=True,
            text=True, timeout=30, check=False,
            env={**os.environ, "LD_PRELOAD": path}).stdout.split("\n")[0]
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    if re.match(r"\d[\w.]*$", said):
        return said
    found = _find(r"^\S+ (?:\d+:)?([\w.]+)", configuration(path), "")
    return found if re.match(r"\d", found) else "unknown"


def configuration(path):
    """How a library was configured: its package, or its build's options."""
    if path is None:
        return "the C library's own malloc"
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    for _ in range(4):
        command = _find(r"^  \$ (\S*configure.*)$",
                        _read(os.path.join(folder, "config.log")), "")
        if command:
            # The directory of the sources says nothing about the build.
            words = command.split(" ", 1)
            return "./configure" + (f" {words[1]}" if words[1:] else "")
        folder = os.path.dirname(folder)
    if not real.startswith(("/usr/", "/lib")):
        return "not known"
    try:
        owner = subprocess.run(
            ["dpkg-query", "-S", real], capture_output=True, text=True,
            timeout=30, check=False).stdout.split(":")[0]
        if owner:
            return subprocess.run(
                ["dpkg-query", "-W", "-f", "${Package} ${Version}", owner],
                capture_output=True, text=True, timeout=30,
                check=False).stdout or owner
    except (OSError, subprocess.TimeoutExpired):
        pass
    return "not known"
