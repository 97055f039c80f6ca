"""`python -m roost.program` is the command `roost`."""

from __future__ import annotations

import sys

from roost.program import main

sys.exit(main())
