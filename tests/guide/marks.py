"""What the files of the guide's run are marked with."""

from __future__ import annotations

import os

import pytest

WHOLE = bool(os.environ.get("GUIDE"))
"""With Debian's Identity, Image and Networking, and guests; else the chapter alone, on what is installed."""
guide = pytest.mark.timeout(1800)
whole = pytest.mark.skipif(not WHOLE, reason="make guide: it installs Debian's Identity, Image, Networking")
