"""Importing this module switches off the telemetry of other libraries, each by its own switch.

It must be imported before the library: packages that use one import this first. Worker processes inherit the variables;
those that a user has set are kept.
"""

import os
import sys

_SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime
    "NNCF_CI": "1",  # NNCF, which has no other switch
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub
}
for _name, _value in _SWITCHES.items():
    os.environ.setdefault(_name, _value)

# OpenVINO and NNCF send telemetry through this optional package, beginning at import, and none without it. Its other
# switches are a file in the user's home and the environment variables of CI servers.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
