"""A long-lived client of the C library libsasl2, as a mail server is one.

`python -m tests.helpers.libsasl_client CONFIGURATION_DIRECTORY` answers each
line of its input, a Check as JSON, with a line of Results as JSON.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

SASL_OK = 0
SASL_FAIL = -1
SASL_BADAUTH = -13

CONFIGURATION_PATH = 1  # SASL_PATH_TYPE_CONFIG


class Check(NamedTuple):
    """Ask *times* times whether the password is right; each time as a connection of its own."""

    user: str
    password: str  # surrogate escapes stand for bytes that are no UTF-8
    times: int = 1


class Results(NamedTuple):
    """The result codes of sasl_checkpass, and how many descriptors this process then has."""

    codes: list[int]
    descriptors: int


class Libsasl:
    """The application `sample`, which reads sample.conf, offering the service smtp."""

    def __init__(self, directory: str) -> None:
        self._library = ctypes.CDLL("libsasl2.so.2")
        self._call("sasl_set_path", CONFIGURATION_PATH, os.fsencode(directory))
        self._call("sasl_server_init", None, b"sample")

    def check(self, user: bytes, password: bytes) -> int:
        """Return the code for *user* and *password* on a fresh connection."""
        connection = ctypes.c_void_p()
        nothing = [None] * 5
        self._call(
            "sasl_server_new",
            *(b"smtp", b"mail.test.example", *nothing[:4], 0, ctypes.byref(connection)),
        )
        code: int = self._library.sasl_checkpass(
            connection, user, len(user), password, len(password)
        )
        self._library.sasl_dispose(ctypes.byref(connection))
        return code

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != SASL_OK:
            raise RuntimeError(f"{name}: {code}")


def main(directory: str) -> None:
    """Answer lines until the input ends."""
    library = Libsasl(directory)
    for line in sys.stdin:
        check = Check(*json.loads(line))
        credentials = os.fsencode(check.user), os.fsencode(check.password)
        codes = [library.check(*credentials) for _ in range(check.times)]
        results = Results(codes, len(list(Path("/proc/self/fd").iterdir())))
        sys.stdout.write(f"{json.dumps(results)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
