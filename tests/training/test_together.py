"""Processes that compute together for one call: what they return, raise, and leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import grouped
import pytest
from folders import HELPERS
from forks import ENVIRONMENT
from refusals import refusal
from waiting import gone, until

from fbnetv3_zoo.errors import LostProcess
from fbnetv3_zoo.training.distributed import together


def test_the_leading_process_returns() -> None:
    before = dict(os.environ)
    assert together(grouped.introduce, 2) == [(0, 2), (1, 2)]
    assert dict(os.environ) == before


def test_the_error_of_one_ends_all() -> None:
    """It is raised as it is, not what the others say about the one that left them."""
    assert refusal(lambda: together(grouped.fail, 2)) == "no such stride"
    with pytest.raises(LostProcess, match=r"^process 1 of 2 died \(signal 9, SIGKILL\)$"):
        together(grouped.die, 2)
    assert refusal(lambda: together(grouped.introduce, 2, "nowhere")).startswith("device 'nowhere' cannot be used")


WAITS = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import grouped
from fbnetv3_zoo.training.distributed import together
if __name__ == "__main__":
    together(partial(grouped.wait, Path(sys.argv[2])), 2)
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_they_end_with_the_process_that_started_them(sent: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    (folder := tmp_path / "pids").mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(HELPERS), str(folder)], env=ENVIRONMENT)
    members = until(lambda: [int(path.name) for path in folder.iterdir()] if len(list(folder.iterdir())) == 2 else None)
    process.send_signal(sent)
    assert process.wait() == -sent
    for member in members:
        until(partial(gone, member))
