"""What other libraries would tell their makers, switched off the way each of them offers. Importing this does it.

It counts only before the library is imported: packages whose modules import one import this first. The variables are
inherited by worker processes; one that a user has set stays.
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

# OpenVINO and NNCF tell their makers through this optional package, from the moment they are imported, and without it
# nobody. Its other switches are a file in the user's home and the mark of a build server.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
