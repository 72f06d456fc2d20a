"""The logger for what this package does unasked. Python prints its warnings on standard error by default."""

import logging

LOG = logging.getLogger("fbnetv3_zoo")
