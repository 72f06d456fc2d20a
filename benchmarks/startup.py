"""Time how long a command takes to answer, as a whole process: importing the package, ``fbnetv3 list``.

Beside them stands the bare interpreter, so that a slow machine is seen as one.

    python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import fbnetv3_zoo'": ["-c", "import fbnetv3_zoo"],
    "fbnetv3 list": ["-c", "from fbnetv3_zoo.cli import main; main(['list'])"],
}
ROUNDS = 15


def main() -> None:
    times: dict[str, list[float]] = {label: [] for label in CASES}
    for n in range(ROUNDS + 1):
        for label, arguments in CASES.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if n:
                times[label].append(time.perf_counter() - started)
    print("| command | median (s) | quartiles |")
    print("|---|---:|---:|")
    for label, found in times.items():
        low, median, high = statistics.quantiles(found, n=4)
        print(f"| `{label}` | {median:.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
