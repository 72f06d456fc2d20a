"""Many processes that ask for the same weights at once, and are killed: one downloads, and no wrong file is ever seen.

Importing torch takes seconds, so a child interpreter that has it forks the askers. The server is in this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_server import FaultyServer, serving
from published import weight_file
from waiting import PATIENCE

from fbnetv3_zoo.arch import Activation, Arch, Conv

NET = "/models/model.safetensors"
WIDE = Arch("wide", 8, ((Conv(3, 256, 1, Activation.RELU), Conv(3, 256, 1, Activation.RELU)),), num_classes=1)  # 2.4 MB

PREPARED = """
import json, logging, os, random, signal, sys, time
from pathlib import Path
import requests, filelock, rich.progress
import torch
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.weights.fetch import fetch, read
from fbnetv3_zoo.weights.cache import WeightsCache
from published import record_of

torch.set_num_threads(1)
logging.disable()
address, folder, arch = sys.argv[1], Path(sys.argv[2]), Arch.from_json(sys.argv[3])
record = record_of(arch, address)
cache = WeightsCache(folder / "cache", timeout=60.0, attempts=3, pause=0.01, lock=folder / "lock.json")
askers = {}

def contents(data):
    start = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:start]), data[start:]  # the order in the header is by chance

apart = WeightsCache(folder / "apart")
right, right_tensors = contents(fetch(record, apart).path.read_bytes()), read(record, apart).tensors

def ask():
    child = os.fork()
    if child == 0:
        try:
            tensors = read(record, cache).tensors
            os._exit(0 if all(torch.equal(tensors[name], right_tensors[name]) for name in right_tensors) else 1)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(2)
    askers[child] = True

def reap(*, wait):
    for child in list(askers):
        ended, status = os.waitpid(child, 0 if wait else os.WNOHANG)
        if ended:
            del askers[child]
            assert status in (0, signal.SIGKILL), status

def look():
    seen = cache.kept()
    for kept in seen:
        assert contents(kept.path.read_bytes()) == right, kept
    return seen
"""

KILLED = (
    PREPARED
    + """
random.seed(0)
def halves():
    try:
        return [path.suffix for path in cache.folder.glob(".fbnetv3-zoo-*/new/*")]
    except FileNotFoundError:  # it has just come to its end
        return []

downloading = writing = others = whole = killed = 0
moment = 0
while moment < 200 or min(downloading, writing, others) < 1 or whole < 10:  # until every phase was hit, however slow
    moment += 1
    while len(askers) < 8:
        ask()
    time.sleep(random.uniform(0.0, 0.1))
    patience = time.monotonic() + 0.3 * (moment % 5 == 0)  # writing takes a millisecond or two: wait for it at times
    while time.monotonic() < patience and ".safetensors" not in halves():
        pass
    victims = random.sample(sorted(askers), random.randint(1, 5))
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    killed += len(victims)
    reap(wait=False)
    seen, left = look(), halves()
    downloading += ".download" in left
    writing += ".safetensors" in left
    others += not left
    whole += len(seen)
    for kept in seen:
        kept.path.unlink()  # so that there is something to do
for victim in askers:
    os.kill(victim, signal.SIGKILL)
reap(wait=True)
left = len(halves())
ask()
reap(wait=True)
[kept] = look()
assert set(os.listdir(cache.folder)) == {".locks", kept.path.name}
assert set(os.listdir(folder)) == {"apart", "cache", "lock.json", ".fbnetv3-zoo-lock.json.lock"}
print(killed, downloading, writing, others, whole, left)
"""
)

AT_ONCE = (
    PREPARED
    + """
for _ in range(8):
    ask()
reap(wait=True)
[kept] = look()
assert set(os.listdir(cache.folder)) == {".locks", kept.path.name}
"""
)


def run(script: str, server: FaultyServer, folder: Path) -> str:
    """What ``script`` prints, asking ``server``."""
    command = [sys.executable, "-c", script, server.address(NET), str(folder), WIDE.to_json()]
    paths = os.pathsep.join(filter(None, sys.path))
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr
    return done.stdout


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving({NET: weight_file(WIDE)}) as server:
        server.seconds = 0.06
        yield server


@pytest.mark.long
def test_askers_killed_at_200_moments(server: FaultyServer, tmp_path: Path) -> None:
    killed, downloading, writing, others, whole, _ = map(int, run(KILLED, server, tmp_path).split())
    assert server.most_at_once == 1
    assert killed >= 400
    assert min(downloading, writing, others) >= 1  # kills hit every phase
    assert whole >= 10  # and did not keep everyone from getting anywhere
    assert len(server.seen) > 30


def test_of_8_askers_one_downloads(server: FaultyServer, tmp_path: Path) -> None:
    run(AT_ONCE, server, tmp_path)
    assert len(server.seen) == 2  # one of them for the file to compare with
    assert server.most_at_once == 1
