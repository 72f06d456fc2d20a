"""Offline, no command connects to anything but this machine; nor does a library leave a trace in the user's home."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tracing
from folders import ROOT
from programs import needed

LOOKS_UP = """
import socket, subprocess, sys
if len(sys.argv) > 1:
    try:
        socket.getaddrinfo("nobody.invalid", 80)
    except OSError:
        sys.exit(0)
subprocess.run([sys.executable, __file__, "child"], check=True)
"""
SENDS = """
import socket
from pathlib import Path
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
    found.connect(("127.0.0.1", 9))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    try:
        found.sendto(b"told", ("192.0.2.1", 9))
    except OSError:
        pass
folder = Path.home() / "vendor" / "telemetry"
folder.mkdir(parents=True)
(folder / "id").touch()
"""


def traced(tmp_path: Path, program: str) -> tracing.Traced:
    needed("strace")
    (tmp_path / "program.py").write_text(program)
    seen = tracing.traced([sys.executable, str(tmp_path / "program.py")], cwd=tmp_path)
    assert seen.code == 0, seen.err
    return seen


@pytest.mark.long
def test_no_library_connects_to_anything() -> None:
    """Each native library once; every command with ``benchmarks/connections.py``, which fails here if it lacks one."""
    needed("strace")
    command = [sys.executable, str(ROOT / "benchmarks" / "connections.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_lookup_in_a_child_process_is_seen(tmp_path: Path) -> None:
    assert [place.rpartition(" ")[2] for place in traced(tmp_path, LOOKS_UP).elsewhere] == ["53"]


def test_what_is_sent_without_a_connection_and_what_is_left_are_seen(tmp_path: Path) -> None:
    seen = traced(tmp_path, SENDS)
    assert (seen.connects, seen.elsewhere, seen.left) == (1, ("192.0.2.1 port 9",), ("vendor/telemetry",))


V4 = '{{sa_family=AF_INET, sin_port=htons({}), sin_addr=inet_addr("{}")}}'
V6 = '{{sa_family=AF_INET6, sin6_port=htons({}), inet_pton(AF_INET6, "{}", &sin6_addr), sin6_scope_id=0}}'
UNIX = '{{sa_family=AF_UNIX, sun_path="{}"}}'


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (V4.format(80, "127.0.0.1"), ()),
        (V4.format(80, "127.9.9.9"), ()),
        (V4.format(53, "127.0.0.53"), ("127.0.0.53 port 53",)),
        (V4.format(443, "10.0.0.1"), ("10.0.0.1 port 443",)),
        (V6.format(80, "::1"), ()),
        (V6.format(80, "::ffff:127.0.0.1"), ()),
        (V6.format(80, "::ffff:10.0.0.1"), ("10.0.0.1 port 80",)),
        (V6.format(443, "2001:db8::1"), ("2001:db8::1 port 443",)),
        (UNIX.format("/var/run/nscd/socket"), ()),
        (UNIX.format("/run/systemd/resolve/io.systemd.Resolve"),
         ('names by sun_path="/run/systemd/resolve/io.systemd.Resolve"',)),
        ("{sa_family=AF_VSOCK, svm_cid=2}", ("AF_VSOCK, svm_cid=2",)),
        ("{sa_family=AF_UNSPEC}", ()),
        ("0x7ffd", ('unreadable: 7 connect(3, 0x7ffd, 16) = 0',)),
    ],
)  # fmt: skip
def test_addresses(address: str, found: tuple[str, ...]) -> None:
    assert tracing.connections(f"7 connect(3, {address}, 16) = 0\n") == (1, found)
    if "0x" not in address:
        assert tracing.connections(
            f'7 connect(3, {address}, 16 <unfinished ...>\n7 sendto(3, "a", 1, 0, NULL, 0) = 1'
        ) == (1, found)
        assert tracing.connections(f"7 sendmsg(3, {{msg_name={address}, msg_iov=[]}}, 0) = 0\n") == (0, found)


def test_a_program_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI_PROGRAMS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="install the Debian package strace"):
        needed("strace", "another")
    monkeypatch.setenv("CI_PROGRAMS", "required")
    with pytest.raises(pytest.fail.Exception, match="install the Debian package strace"):
        needed("strace", "another")
