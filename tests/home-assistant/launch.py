"""Starts Home Assistant with the integrations that the check needs and no others: without them it needs no browser
interface (`frontend`), which is large, and no database."""

import sys

from homeassistant import bootstrap
from homeassistant.__main__ import main

bootstrap.DEFAULT_INTEGRATIONS = {"automation", "config", "device_automation", "logger"}
bootstrap.CRITICAL_INTEGRATIONS = set()
sys.exit(main())
