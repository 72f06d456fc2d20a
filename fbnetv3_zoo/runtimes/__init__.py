"""Model files opened on the runtime that their ending names: one file a runtime, imported when it is needed."""

from ..utils import telemetry  # noqa: F401 - ahead of the libraries that it silences
