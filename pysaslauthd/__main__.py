"""Lets `python -m pysaslauthd` start the daemon."""

import sys

from pysaslauthd.cli.saslauthd import main

sys.exit(main())
