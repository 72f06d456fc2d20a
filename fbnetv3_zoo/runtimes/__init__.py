"""Model files opened on the runtime that their suffix selects: one module per runtime, imported on demand."""

from ..utils import telemetry  # noqa: F401 - ahead of the libraries that it silences
