"""pysaslauthd: answers "is this password right?" for mail and directory servers."""

__version__ = "0.1.0"
