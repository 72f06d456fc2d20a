"""The logger for notices and side effects. By default, Python prints its warnings on standard error."""

import logging

LOG = logging.getLogger("fbnetv3_zoo")
