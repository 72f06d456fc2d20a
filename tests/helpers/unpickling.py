"""Checkpoints unpickled by forks of one process that has imported torch: importing it takes longer than most tests.

As a script it is that process: it is given files by a socket and answers how each fork ended.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
from typing import IO


def unpickled(given: IO[bytes], answer: IO[bytes], name: str, *, seconds: float) -> subprocess.CompletedProcess[str]:
    """What ``weights.torch_checkpoint`` starts a process for, done by a fork; ``name`` and ``seconds`` are not used."""
    reading, writing = os.pipe()
    with os.fdopen(reading, errors="replace") as words:
        socket.send_fds(_server(), [b"file"], [given.fileno(), answer.fileno(), writing])
        os.close(writing)
        said = words.read()
    return subprocess.CompletedProcess([], json.loads(_server().recv(100)), "", said)


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-P", __file__], stdin=theirs, env=environment)
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # before it is waited for: it ends then
    return ours


def main() -> None:
    """Answer until the other end of the socket, which is standard input, is closed."""
    import safetensors.torch  # noqa: F401 - so that the forks have it

    import fbnetv3_zoo.weights.convert  # noqa: F401
    from fbnetv3_zoo.weights import unpickle

    requests = socket.socket(fileno=0)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 100, 3)
        if not message:
            return
        child = os.fork()
        if not child:
            code = 1
            try:
                for own, other in enumerate(descriptors):
                    os.dup2(other, own)
                with os.fdopen(0, "rb", closefd=False) as source, os.fdopen(1, "wb", closefd=False) as target:
                    code = unpickle.main(source, target, os.getppid())
            finally:
                os._exit(code)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.sendall(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


if __name__ == "__main__":
    main()
