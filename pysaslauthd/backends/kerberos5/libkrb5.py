"""MIT's libkrb5, as far as passwords are checked with it; facts: its reference (krb5.h).

No call is given a prompter, so that none can ask a terminal.
"""

import contextlib
import ctypes
import functools
from enum import IntEnum
from typing import Any, Self

from pysaslauthd.errors import StartupError

LIBRARY = "libkrb5.so.3"
LONGEST_TEXT = 160  # characters: messages repeat names, and those come from strangers
LONGEST_NAME = 1024  # bytes of a keytab's name
NT_SRV_HST = 3  # the type of a principal that is a service of a host
# By a certificate (PKINIT, RFC 4556) this machine gets its own ticket, and anybody an anonymous
# one (RFC 8062), whatever the password. This, in place of krb5.conf's authorities, prevents it.
NO_CERTIFICATES = b"X509_anchors", b"none"
AP_REQ_NOFAIL = 1  # a flag: without a keytab nothing is verified

Handle = ctypes.c_void_p
Status = ctypes.c_int32
Number = ctypes.c_int32
Text = ctypes.c_char_p
Made = ctypes.POINTER(Handle)
# For structures that only the library looks into: a krb5_creds has 120 bytes, a
# krb5_keytab_entry 48.
Room = Handle * 32
Ticket = ctypes.Array[Handle]


class _VerifyOptions(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_int32), ("ap_req_nofail", ctypes.c_int))


FUNCTIONS: dict[str, tuple[Any, ...]] = {  # what each returns, and its parameters
    "krb5_init_context": (Status, Made),
    "krb5_free_context": (None, Handle),
    "krb5_get_error_message": (Handle, Handle, Number),
    "krb5_free_error_message": (None, Handle, Handle),
    "krb5_parse_name": (Status, Handle, Text, Made),
    "krb5_sname_to_principal": (Status, Handle, Text, Text, Number, Made),
    "krb5_free_principal": (None, Handle, Handle),
    "krb5_kt_default": (Status, Handle, Made),
    "krb5_kt_resolve": (Status, Handle, Text, Made),
    "krb5_kt_get_name": (Status, Handle, Handle, Text, ctypes.c_uint),
    "krb5_kt_start_seq_get": (Status, Handle, Handle, Made),
    "krb5_kt_next_entry": (Status, Handle, Handle, Handle, Made),
    "krb5_kt_end_seq_get": (Status, Handle, Handle, Made),
    "krb5_free_keytab_entry_contents": (Status, Handle, Handle),
    "krb5_kt_close": (Status, Handle, Handle),
    "krb5_get_init_creds_opt_alloc": (Status, Handle, Made),
    "krb5_get_init_creds_opt_set_pa": (Status, Handle, Handle, Text, Text),
    "krb5_get_init_creds_opt_free": (None, Handle, Handle),
    "krb5_get_init_creds_password": (
        *(Status, Handle, Handle, Handle, Text),
        *(Handle, Handle, Number, Text, Handle),
    ),
    "krb5_verify_init_creds": (
        *(Status, Handle, Handle, Handle, Handle),
        *(Made, ctypes.POINTER(_VerifyOptions)),
    ),
    "krb5_free_cred_contents": (None, Handle, Handle),
}


class Code(IntEnum):
    """What a call may return; krb5.h has KRB5KDC_ERR_, KRB5KRB_ or KRB5_ before the names."""

    ENOENT = 2
    EACCES = 13
    EINVAL = 22
    NAME_EXP = -1765328383
    C_PRINCIPAL_UNKNOWN = -1765328378
    S_PRINCIPAL_UNKNOWN = -1765328377
    POLICY = -1765328372
    ETYPE_NOSUPP = -1765328370
    CLIENT_REVOKED = -1765328366
    CLIENT_NOTYET = -1765328363
    KEY_EXP = -1765328361
    PREAUTH_FAILED = -1765328360
    AP_ERR_BAD_INTEGRITY = -1765328353
    AP_ERR_SKEW = -1765328347
    AP_ERR_BADKEYVER = -1765328340
    PARSE_MALFORMED = -1765328250
    CONFIG_BADFORMAT = -1765328248
    KDCREP_MODIFIED = -1765328237
    KDCREP_SKEW = -1765328236
    REALM_UNKNOWN = -1765328230
    KDC_UNREACH = -1765328228
    KT_NOTFOUND = -1765328203
    GENERIC_PREAUTH_FAILED = -1765328174
    REALM_CANT_RESOLVE = -1765328164
    CONFIG_NODEFREALM = -1765328160
    KT_KVNONOTFOUND = -1765328154


class KerberosError(Exception):
    """The function *call* returned *code*, which means *text*; both are safe to log."""

    def __init__(self, call: str, code: int, text: str) -> None:
        super().__init__(f"{call}: {text} ({code})")
        self.call = call
        self.code = code
        self.text = text


@functools.cache
def load() -> ctypes.CDLL:
    """Return libkrb5, loaded once: before workers are forked, for all; StartupError without it."""
    try:
        library = ctypes.CDLL(LIBRARY)  # which lets go of the GIL in every call
    except OSError as error:
        raise StartupError(
            f"kerberos5: cannot load {LIBRARY}: {error}",
            "Install MIT's Kerberos library; on Debian: apt-get install libkrb5-3",
        ) from error
    for name, (result, *parameters) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = parameters
    return library


class Session:
    """One context of the library, which has read krb5.conf as it is now; for one thread.

    Every method raises KerberosError. What they return lasts until the session ends.
    """

    def __init__(self) -> None:
        self._library = load()
        self._context = Handle()
        self._call("krb5_init_context", ctypes.byref(self._context))
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._library.krb5_free_context, self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def principal(self, name: bytes) -> Handle:
        """Return the principal that *name* says; without a realm it is of the default one."""
        return self._make("krb5_parse_name", "krb5_free_principal", name)

    def host_principal(self, service: bytes, host: bytes | None) -> Handle:
        """Return the principal of *service* on *host*, or on this machine.

        Unless krb5.conf says otherwise, DNS is asked for the host's full name.
        """
        free = "krb5_free_principal"
        return self._make("krb5_sname_to_principal", free, host, service, NT_SRV_HST)

    def keytab(self, name: bytes | None) -> Handle:
        """Return the keytab by that name, or the system's; it need not exist."""
        if name is None:
            return self._make("krb5_kt_default", "krb5_kt_close")
        return self._make("krb5_kt_resolve", "krb5_kt_close", name)

    def name_of_keytab(self, keytab: Handle) -> str:
        """Return a keytab's name, with its type before it, such as FILE."""
        room = ctypes.create_string_buffer(LONGEST_NAME)
        self._call("krb5_kt_get_name", self._context, keytab, room, LONGEST_NAME)
        return readable(room.value)

    def has_keys(self, keytab: Handle) -> bool:
        """Say whether there is a key in the keytab."""
        cursor = Handle()
        position = (self._context, keytab, ctypes.byref(cursor))
        self._call("krb5_kt_start_seq_get", *position)
        try:
            entry = Room()
            self._call("krb5_kt_next_entry", self._context, keytab, entry, ctypes.byref(cursor))
            self._library.krb5_free_keytab_entry_contents(self._context, entry)
        except KerberosError:  # it ends here, whole or not
            return False
        finally:
            self._library.krb5_kt_end_seq_get(*position)
        return True

    def ticket(self, client: Handle, password: bytes) -> Ticket:
        """Return what the KDC of *client*'s realm gives for *password*, which has no NUL."""
        ticket = Room()
        options = self._make("krb5_get_init_creds_opt_alloc", "krb5_get_init_creds_opt_free")
        self._call("krb5_get_init_creds_opt_set_pa", self._context, options, *NO_CERTIFICATES)
        self._call(
            "krb5_get_init_creds_password",
            *(self._context, ticket, client, password),
            *(None, None, 0, None, options),  # no prompter, at once, for the KDC itself
        )
        self._stack.callback(self._library.krb5_free_cred_contents, self._context, ticket)
        return ticket

    def verify(self, ticket: Ticket, server: Handle, keytab: Handle) -> None:
        """Return if the *ticket* is from a KDC that has *server*'s key, which is in *keytab*."""
        # There is no replay to fear, for the request does not leave the process: the library
        # keeps no record of it, neither in memory nor below /var/tmp.
        options = _VerifyOptions(AP_REQ_NOFAIL, 1)
        self._call(
            "krb5_verify_init_creds",
            *(self._context, ticket, server, keytab),
            *(None, ctypes.byref(options)),
        )

    def _make(self, call: str, free: str, *arguments: object) -> Handle:
        made = Handle()
        self._call(call, self._context, *arguments, ctypes.byref(made))
        self._stack.callback(getattr(self._library, free), self._context, made)
        return made

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise KerberosError(name, code, self._explain(code))

    def _explain(self, code: int) -> str:
        """Return what *code* means, in the words of the library, about the call just made."""
        message = self._library.krb5_get_error_message(self._context, code)
        text = readable(ctypes.string_at(message))
        self._library.krb5_free_error_message(self._context, message)
        return text


def readable(text: bytes) -> str:
    """Return *text* of the library as one bounded line: names in it come from strangers."""
    line = text.decode(errors="backslashreplace")[:LONGEST_TEXT]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
