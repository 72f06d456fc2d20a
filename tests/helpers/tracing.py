"""Commands under strace: what they connect to, in all their processes, and what they leave in the user's home."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from folders import ROOT

OURS = ".cache/fbnetv3-zoo"
CALLS = "connect,sendto,sendmsg,sendmmsg"
NAME_SERVER = 53
RESOLVERS = ("io.systemd.Resolve", "/run/avahi-daemon/socket")
"""In the paths of sockets behind which a service of this machine asks others for names."""

_CALL = re.compile(rf"^\d+\s+({CALLS.replace(',', '|')})\((.*)$")
_ADDRESS = re.compile(r"\{sa_family=(AF_\w+|0x[0-9a-f]+|\d+)([^}]*)\}")
_HOST = re.compile(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Traced:
    """A command that ended: how, how often it connected, addresses beyond this machine, and what is in its home."""

    code: int
    out: str
    err: str
    connects: int
    elsewhere: tuple[str, ...]
    left: tuple[str, ...]


def fbnetv3(*arguments: str, cwd: Path, visited: bool = False) -> Traced:
    """``fbnetv3 ARGUMENTS``, traced."""
    return traced([sys.executable, "-m", "fbnetv3_zoo", *arguments], cwd=cwd, visited=visited)


def traced(command: Sequence[str], *, cwd: Path, visited: bool = False) -> Traced:
    """Run ``command`` offline, for a user whose home is empty, outside continuous integration.

    One that is ``visited`` is a server: the address that it prints first is opened, then it is interrupted.
    """
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as name:  # short: Ray has sockets in it
        home, temporary, log = (Path(name, part) for part in ("home", "t", "log"))
        home.mkdir()
        temporary.mkdir()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                        "OMP_WAIT_POLICY": "PASSIVE", "FBNETV3_ZOO_OFFLINE": "1"}  # fmt: skip
        tracer = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none", "-s", "200"]
        started = subprocess.Popen(
            [*tracer, "-o", str(log), *command], env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        first = _visit(started) if visited else ""
        out, err = started.communicate()
        connects, elsewhere = connections(log.read_text(errors="replace"))
        left = sorted({_place(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()})
    return Traced(started.returncode, first + out, err, connects, elsewhere, tuple(left))


def connections(log: str) -> tuple[int, tuple[str, ...]]:
    """How many calls of connect are in what strace wrote, and what was addressed that is not on this machine."""
    connects, found = 0, set()
    for line in log.splitlines():
        if (call := _CALL.match(line)) is None:
            continue
        addresses = _ADDRESS.findall(call[2])
        if call[1] == "connect":
            connects += 1
            if not addresses:
                found.add(f"unreadable: {line}")
        found |= {place for place in (_beyond(*address) for address in addresses) if place}
    return connects, tuple(sorted(found))


def _beyond(family: str, rest: str) -> str:
    """The address as it is reported; empty for one on this machine behind which no names are looked up."""
    if family in ("AF_UNSPEC", "AF_NETLINK"):
        return ""
    if family == "AF_UNIX":
        return f"names by {rest.strip(', ')}" if any(part in rest for part in RESOLVERS) else ""
    host, port = _HOST.search(rest), _PORT.search(rest)
    if family not in ("AF_INET", "AF_INET6") or host is None or port is None:
        return f"{family}{rest}"
    address = ipaddress.ip_address(host[1])
    address = getattr(address, "ipv4_mapped", None) or address
    here = address.is_loopback or address.is_unspecified
    return "" if here and int(port[1]) != NAME_SERVER else f"{address} port {port[1]}"


def _place(path: Path) -> str:
    """A file of a home, or the folder that holds it, to tell by whom it is."""
    return "/".join(path.parts[: 3 if path.parts[0] in (".cache", ".config", ".local") else 2])


def _visit(server: subprocess.Popen[str]) -> str:
    """Open the address in the first line of ``server``, then interrupt it; the line."""
    assert server.stdout is not None
    line = server.stdout.readline()
    if address := re.match(r"http://\S+", line):
        with build_opener(ProxyHandler({})).open(address[0]) as answer:
            answer.read()
    os.killpg(server.pid, signal.SIGINT)  # strace itself is deaf to it
    return line
