"""With this folder in PYTHONPATH, the package finds only what Windows has too in ``os`` and ``signal``.

Other packages find everything: what they do there is theirs to know.
"""

from __future__ import annotations

import builtins
import os
import signal
from types import ModuleType
from typing import Any

GONE = ("fcntl", "grp", "pwd", "resource", "termios")
LACKING = {
    os: {
        "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "ST_RDONLY", "chown", "fchmod", "fork", "geteuid", "getloadavg",
        "getpgid", "getuid", "killpg", "mkfifo", "pread", "register_at_fork", "sched_getaffinity", "setpgrp", "setsid",
        "statvfs", "uname",
    },
    signal: {"ITIMER_REAL", "SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "pthread_sigmask", "setitimer"},
}  # fmt: skip


class _Without(ModuleType):
    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name in LACKING[self._module]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)


_SHOWN = {module.__name__: _Without(module) for module in LACKING}
_import = builtins.__import__


def _imported(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> ModuleType:
    importer = str((globals or {}).get("__name__", ""))
    if importer.partition(".")[0] == "fbnetv3_zoo" and level == 0:
        if name in GONE:
            raise ImportError(f"No module named {name!r}")
        if name.partition(".")[0] in _SHOWN:
            return _SHOWN[name.partition(".")[0]]
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = _imported
