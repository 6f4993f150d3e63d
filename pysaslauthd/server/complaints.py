"""Log lines of which clients decide how many there would be."""

import logging
import math
import time

SECONDS_BETWEEN = 60.0


class Complaints:
    """Writes to *log* each kind of line, by its text without values, once a minute at most."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._written: dict[str, float] = {}

    def error(self, text: str, *values: object) -> None:
        """Log what must be seen to."""
        self._write(logging.ERROR, text, values)

    def warning(self, text: str, *values: object) -> None:
        """Log what may have to be seen to."""
        self._write(logging.WARNING, text, values)

    def _write(self, level: int, text: str, values: tuple[object, ...]) -> None:
        now = time.monotonic()
        if now - self._written.get(text, -math.inf) >= SECONDS_BETWEEN:
            self._written[text] = now
            self._log.log(level, text, *values)
