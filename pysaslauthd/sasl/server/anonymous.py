"""ANONYMOUS (RFC 4505): nobody in particular, who may leave a trace of who that is.

The trace is checked and goes nowhere: anybody may claim anything in it, and where it
stood for a name it would be taken for one.
"""

from pysaslauthd.errors import MalformedMessage
from pysaslauthd.model import Accepted
from pysaslauthd.sasl.server.mechanism import (
    Finished,
    Mechanism,
    Need,
    Script,
    Surroundings,
    Traits,
    first_message,
)
from pysaslauthd.sasl.server.text import CONTROL

USER = "anonymous"
LONGEST_TRACE = 255  # characters (section 2)


def script(_surroundings: Surroundings, initial: bytes | None) -> Script:
    check_trace((yield from first_message(initial)))
    return Finished(Accepted(USER, backend="anonymous"), USER)


def check_trace(message: bytes) -> None:
    """Refuse what is no trace."""
    try:
        trace = message.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("ANONYMOUS: the trace is not UTF-8") from None
    if len(trace) > LONGEST_TRACE:
        raise MalformedMessage(f"ANONYMOUS: the trace has more than {LONGEST_TRACE} characters")
    if CONTROL.search(trace):
        raise MalformedMessage("ANONYMOUS: the trace has a control character")


ANONYMOUS = Mechanism("ANONYMOUS", Need.NOTHING, Traits(anonymous=True), script)
