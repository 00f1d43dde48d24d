"""``python -m historyad`` is the command line."""

import sys

from historyad.cli import main

sys.exit(main())
