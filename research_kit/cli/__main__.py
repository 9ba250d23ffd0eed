"""``python -m research_kit.cli``."""

from __future__ import annotations

import sys

from research_kit.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
