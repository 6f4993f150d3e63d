"""Asks PAM: the stack of rules that bears the name of the application's service.

Facts: protocols/backends.md section 4; pam(3), pam_conv(3), pam_fail_delay(3).
"""

import ctypes
import functools
import logging
from typing import Any

from pam.__internals import (
    PAM_ABORT,
    PAM_ACCT_EXPIRED,
    PAM_AUTH_ERR,
    PAM_AUTHINFO_UNAVAIL,
    PAM_AUTHTOK_EXPIRED,
    PAM_BUF_ERR,
    PAM_CONV_ERR,
    PAM_CRED_EXPIRED,
    PAM_DISALLOW_NULL_AUTHTOK,
    PAM_ERROR_MSG,
    PAM_MODULE_UNKNOWN,
    PAM_NEW_AUTHTOK_REQD,
    PAM_OPEN_ERR,
    PAM_PROMPT_ECHO_OFF,
    PAM_PROMPT_ECHO_ON,
    PAM_RHOST,
    PAM_SERVICE_ERR,
    PAM_SILENT,
    PAM_SUCCESS,
    PAM_SYMBOL_ERR,
    PAM_SYSTEM_ERR,
    PAM_TEXT_INFO,
    PAM_TRY_AGAIN,
    PAM_TTY,
    PAM_USER_PROMPT,
    PAM_USER_UNKNOWN,
    PamAuthenticator,
    PamConv,
    PamHandle,
    PamResponse,
    conv_func,
)

from pysaslauthd.errors import StartupError
from pysaslauthd.model import (
    Accepted,
    AuthRequest,
    AuthResult,
    Reason,
    Rejected,
    Secret,
    Unavailable,
)

log = logging.getLogger(__name__)

NAME = "pam"
LIBRARY = "libpam.so.0"
OTHER = "other"  # the service whose rules PAM applies where there are none
MOST_ROUNDS = 100  # of questions in one request: a stack that asks for ever is no stack
MOST_MESSAGES = 32  # in one round: PAM_MAX_NUM_MSG of Linux-PAM
MOST_PINNED = 32  # services: clients choose the names
PAM_FAIL_DELAY = 10  # an item of Linux-PAM that python-pam does not name
# An account without a password would take any, and Debian's rules allow that (nullok).
FLAGS = PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK

BAD_SERVICE = Rejected(Reason.DENIED, NAME, "PAM start error")
REFUSALS = {"pam_authenticate": "PAM auth error", "pam_acct_mgmt": "PAM acct error"}
OUTAGES = {
    PAM_ABORT,
    PAM_AUTHINFO_UNAVAIL,
    PAM_BUF_ERR,
    PAM_CONV_ERR,
    PAM_MODULE_UNKNOWN,
    PAM_OPEN_ERR,
    PAM_SERVICE_ERR,
    PAM_SYMBOL_ERR,
    PAM_SYSTEM_ERR,
    PAM_TRY_AGAIN,
}
REASONS = {
    PAM_USER_UNKNOWN: Reason.NO_SUCH_USER,
    PAM_AUTH_ERR: Reason.WRONG_PASSWORD,
    PAM_ACCT_EXPIRED: Reason.ACCOUNT_EXPIRED,
    PAM_AUTHTOK_EXPIRED: Reason.PASSWORD_EXPIRED,
    PAM_CRED_EXPIRED: Reason.PASSWORD_EXPIRED,
    PAM_NEW_AUTHTOK_REQD: Reason.PASSWORD_EXPIRED,
}


class Libpam:
    """python-pam's binding of libpam as *calls*, and the one call it lacks."""

    def __init__(self) -> None:
        # For all to see: there are modules that rely on whoever loads them to bring libpam.
        library = ctypes.CDLL(LIBRARY, ctypes.RTLD_GLOBAL)
        self.calls = PamAuthenticator()
        self.get_item = library.pam_get_item
        self.get_item.argtypes = [PamHandle, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]

    def explain(self, code: int) -> str:
        """Return what a PAM code means, in PAM's words."""
        return _readable(self.calls.pam_strerror(PamHandle(), code))


@functools.cache
def load() -> Libpam:
    """Return libpam, loaded once; StartupError where it is missing.

    Looking for it may run a program (ldconfig): call this before workers are forked.
    """
    try:
        return Libpam()
    except OSError as error:
        raise StartupError(
            f"pam: cannot load {LIBRARY}: {error}",
            "Install the PAM library; on Debian: apt-get install libpam0g",
        ) from error


class Unanswerable(Exception):
    """A module sent a message of an unknown kind, or too many."""


class Transaction:
    """From pam_start to pam_end for *user* and *service*, and what modules ask meanwhile.

    They are answered as by the C daemon (backends.md section 4).
    """

    def __init__(self, libpam: Libpam, service: bytes, user: bytes, password: Secret) -> None:
        self.delay = 0.0  # seconds for which a module wants the refusal held
        self.gave_up = False  # for want of patience or memory: what follows is no verdict
        self._libpam = libpam
        self._service = service
        self._user = user
        self._password = password
        self._handle = PamHandle()
        self._rounds = 0

    def start(self) -> int:
        """Read the service's rules and load its modules; return a PAM code.

        On success `run` or `end` is due.
        """
        conversation = PamConv(CONVERSE, id(self))
        code: int = self._libpam.calls.pam_start(
            self._service, self._user, ctypes.byref(conversation), ctypes.byref(self._handle)
        )
        return code

    def run(self, address: str) -> tuple[str, int]:
        """Let the modules decide about a client at *address*, and end the transaction.

        Returns the last call made, by name, and its code.
        """
        calls = self._libpam.calls
        step, code = "pam_set_item", PAM_ABORT
        try:
            code = self._set_items(address)
            if code == PAM_SUCCESS:
                step, code = "pam_authenticate", calls.pam_authenticate(self._handle, FLAGS)
            if code == PAM_SUCCESS:
                step, code = "pam_acct_mgmt", calls.pam_acct_mgmt(self._handle, FLAGS)
        finally:
            self.end(code)
        return step, code

    def end(self, code: int) -> None:
        """Let go of everything; modules are told *code*, what the last call returned."""
        self._libpam.calls.pam_end(self._handle, code)

    def _set_items(self, address: str) -> int:
        items = {
            PAM_TTY: self._service,  # else pam_access takes the terminal of the daemon
            PAM_RHOST: address.encode() or None,
            PAM_FAIL_DELAY: NOTE_DELAY,  # else libpam sleeps
        }
        code: int = PAM_SUCCESS
        for item, value in items.items():
            code = code or self._libpam.calls.pam_set_item(self._handle, item, value)
        return code

    def answer_round(self, count: int, messages: Any, responses: Any) -> None:
        """Answer *count* messages, as pam_conv(3) has it; an exception answers none of them."""
        self._rounds += 1
        if self._rounds > MOST_ROUNDS or count > MOST_MESSAGES:
            self.gave_up = True
            raise Unanswerable
        answers = [self._answer(messages[number].contents) for number in range(count)]
        responses[0] = self._for_modules_to_free(answers)

    def _answer(self, message: Any) -> bytes | None:
        if message.msg_style == PAM_PROMPT_ECHO_OFF:
            return self._password.reveal()
        if message.msg_style == PAM_PROMPT_ECHO_ON:
            return self._user if self._is_for_the_user(message.msg) else None
        if message.msg_style in {PAM_ERROR_MSG, PAM_TEXT_INFO}:
            return None
        raise Unanswerable

    def _is_for_the_user(self, prompt: bytes | None) -> bool:
        expected = ctypes.c_char_p()  # modules may change it between two prompts
        self._libpam.get_item(self._handle, PAM_USER_PROMPT, ctypes.byref(expected))
        if prompt is not None and prompt == expected.value:
            return True
        text = _readable(prompt or b"")
        log.debug("DEBUG: saslauthd_pam_conv: unknown prompt string: %s", text)
        return False

    def _for_modules_to_free(self, answers: list[bytes | None]) -> Any:
        address = self._calloc(len(answers), ctypes.sizeof(PamResponse))
        responses = ctypes.cast(address, ctypes.POINTER(PamResponse))
        for number, answer in enumerate(answers):
            if answer is not None:
                text = self._calloc(len(answer) + 1, 1)
                ctypes.memmove(text, answer, len(answer))
                responses[number].resp = text
        return responses

    def _calloc(self, count: int, size: int) -> int:
        address: int | None = self._libpam.calls.calloc(count, size)
        if address is None:
            raise MemoryError
        return address


def _converse(count: int, messages: Any, responses: Any, address: int) -> int:
    code: int = PAM_SUCCESS
    transaction = _transaction_at(address)
    try:
        transaction.answer_round(count, messages, responses)
    except Unanswerable:
        code = PAM_CONV_ERR
    except Exception:  # ctypes would drop it, and the module take that for an answer
        log.exception("pam: a module's question has no answer")
        transaction.gave_up = True
        code = PAM_CONV_ERR
    return code


def _note_delay(code: int, microseconds: int, address: int) -> None:
    if code != PAM_SUCCESS:  # libpam calls this after every pam_authenticate
        _transaction_at(address).delay = microseconds / 1_000_000


def _transaction_at(address: int) -> Transaction:
    transaction: Transaction = ctypes.cast(address, ctypes.py_object).value
    return transaction


def _readable(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


# What libpam calls must never be collected.
CONVERSE = conv_func(_converse)
NOTE_DELAY = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)(_note_delay)


class Pam:
    """The backend `-a pam` as it runs in a worker; StartupError where libpam is missing.

    Each request reads the service's rules anew. Texts are the C daemon's
    (backends.md section 4), but a fault of PAM's or a module's is `Unavailable`,
    and nothing sleeps after a refusal: its `delay` says for how long PAM would.
    """

    name = NAME

    def __init__(self) -> None:
        self._libpam = load()
        self._pinned: dict[bytes, Transaction] = {}  # by service, the one used last at the end

    def check(self, request: AuthRequest, /) -> AuthResult:
        """Return the verdict of the service's rules; one request at a time."""
        service = request.origin.service or OTHER
        if "/" in service or service.startswith("."):  # libpam would take what follows the slash
            return BAD_SERVICE
        stack = service.encode().lower()  # ASCII letters only, as libpam does
        transaction = Transaction(self._libpam, stack, request.user.encode(), request.password)
        step, code = "pam_start", self._pin(stack) or transaction.start()
        if code == PAM_SUCCESS:
            step, code = transaction.run(request.origin.remote.partition(";")[0])
        if code == PAM_SUCCESS:
            return Accepted(request.user, NAME)
        if transaction.gave_up:
            code = PAM_CONV_ERR  # whatever a module made of it
        problem = self._libpam.explain(code)
        log.debug("DEBUG: auth_pam: %s failed: %s", step, problem)
        if code in OUTAGES or step not in REFUSALS:
            return Unavailable(f"{step} (service {service}): {problem}", NAME)
        return Rejected(REASONS.get(code, Reason.DENIED), NAME, REFUSALS[step], transaction.delay)

    def _pin(self, service: bytes) -> int:
        """Keep the service's modules loaded, by a transaction that is never run.

        To load them is most of the work of a request. Returns a PAM code.
        """
        pinned = self._pinned.pop(service, None)
        if pinned is None:
            pinned = Transaction(self._libpam, service, b"", Secret(b""))
            code = pinned.start()
            if code != PAM_SUCCESS:
                return code
        self._pinned[service] = pinned
        if len(self._pinned) > MOST_PINNED:
            self._pinned.pop(next(iter(self._pinned))).end(PAM_SUCCESS)
        return int(PAM_SUCCESS)
