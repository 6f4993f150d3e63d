"""What an SMTP client sees: the greeting, and dialogues held by swaks."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from tests.helpers.processes import DEADLINE

SWAKS = (
    *("swaks", "--timeout", "15", "--helo", "client.test.example", "--quit-after", "RCPT"),
    *("--from", "a@sender.test.example", "--to", "b@foreign.example"),
)

VERBS = {"EHLO", "AUTH", "MAIL", "RCPT", "QUIT"}

# swaks marks what it sends with " -> ", a reply with "<-  ", an unwanted one with "<** ";
# within TLS the dash, and the first star, are a tilde.
LINE = re.compile(r"^(?P<who> [-~]> |<[-~]  |<[*~]\* )(?P<text>.*)$", re.MULTILINE)


def greeting(port: int) -> str:
    """Return the first line of the server at *port*, or "" if there is none yet."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        line: str = client.makefile(errors="backslashreplace").readline()
        client.sendall(b"QUIT\r\n")
        return line
    return ""


class Dialogue(NamedTuple):
    """What swaks and a server said to each other."""

    transcript: str

    def replies(self, verb: str) -> list[str]:
        """Return the server's lines after *verb*, to the next verb."""
        return [line for spoken, line in self._lines() if spoken == verb]

    def code(self, verb: str) -> int | None:
        """Return the code of the last reply to *verb*; None where it was never answered."""
        replies = self.replies(verb)
        return int(replies[-1][:3]) if replies else None

    def offered(self) -> set[str]:
        """Return the mechanisms in the reply to EHLO."""
        lines = [line.split() for line in self.replies("EHLO") if line[4:].startswith("AUTH ")]
        return {mechanism for line in lines for mechanism in line[1:]}

    def _lines(self) -> Iterator[tuple[str, str]]:
        verb = ""
        for line in LINE.finditer(self.transcript):
            if not line["who"].endswith("> "):
                yield verb, line["text"]
            elif (word := line["text"].split(" ")[0]) in VERBS:
                verb = word


def swaks(port: int, *arguments: str) -> Dialogue:
    """Talk to the server at *port* up to RCPT for a foreign domain; nothing is sent."""
    done = subprocess.run(
        [*SWAKS, "--server", f"127.0.0.1:{port}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE,
        check=False,  # swaks has an exit code for every refusal
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},  # no one's .swaksrc
    )
    return Dialogue(done.stdout.decode(errors="backslashreplace"))


def swaks_auth(port: int, mechanism: str, user: str, password: str, *more: str) -> Dialogue:
    """Log in with *mechanism*, then go on as `swaks` does."""
    credentials = ["--auth", mechanism, "--auth-user", user, "--auth-password", password]
    return swaks(port, *credentials, *more)


def gsasl_auth(port: int, mechanism: str, user: str, password: str, *more: str) -> int:
    """Log in with GNU SASL's client; return the code of the last reply, that to QUIT aside.

    It has SCRAM, which swaks has not.
    """
    said = subprocess.run(
        [
            *("gsasl", "--smtp", "--no-starttls", "--no-cb", f"--connect=127.0.0.1:{port}"),
            *("--service=smtp", "--quality-of-protection=qop-auth", "--realm="),
            *(f"--mechanism={mechanism}", f"--authentication-id={user}", f"--password={password}"),
            *("--anonymous-token=somebody", *more),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=DEADLINE,
        check=False,  # it fails where the server refuses
    ).stdout
    codes = re.findall(r"^(?!221)(\d{3}) ", said, re.MULTILINE)
    return int(codes[-1])
