"""The client side of the C library libsasl2, as a mail client is one; see sasl_clients."""

import ctypes
import os
from typing import Any

from tests.helpers.sasl_clients import ClientRefuses, Wish, serve
from tests.helpers.sasl_servers import BY_CERTIFICATE, HOST, SERVICE

SASL_OK = 0
SASL_CONTINUE = 1
SASL_CHANNEL_BINDING = 21
SASL_AUTH_EXTERNAL = 102
SASL_CB_LIST_END = 0
SASL_CB_USER = 0x4001
SASL_CB_AUTHNAME = 0x4002
SASL_CB_PASS = 0x4004
SASL_CB_GETREALM = 0x4008

POINTER, INT, TEXT, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
NAME = ctypes.CFUNCTYPE(INT, POINTER, INT, ctypes.POINTER(TEXT), ctypes.POINTER(SIZE))
PASSWORD = ctypes.CFUNCTYPE(INT, POINTER, POINTER, INT, ctypes.POINTER(POINTER))
REALM = ctypes.CFUNCTYPE(INT, POINTER, INT, ctypes.POINTER(TEXT), ctypes.POINTER(TEXT))


class Callback(ctypes.Structure):
    """sasl_callback_t."""

    _fields_ = (("id", ctypes.c_ulong), ("call", POINTER), ("context", POINTER))


class ChannelBinding(ctypes.Structure):
    """sasl_channel_binding_t."""

    _fields_ = (("name", TEXT), ("critical", INT), ("len", ctypes.c_ulong), ("data", TEXT))


class LibsaslClient:
    """Asked for `SCRAM-SHA-1-PLUS` it is offered that and what it is without PLUS."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libsasl2.so.2")
        self._connection = POINTER()
        self._call("sasl_client_init", None)

    def begin(self, wish: Wish, /) -> bytes | None:
        self._library.sasl_dispose(ctypes.byref(self._connection))
        self._kept = callbacks(wish)
        self._call(
            "sasl_client_new",
            *(SERVICE.encode(), HOST.encode(), None, None, self._kept[0], 0),
            ctypes.byref(self._connection),
        )
        certified = TEXT(BY_CERTIFICATE.encode())
        self._call("sasl_setprop", self._connection, SASL_AUTH_EXTERNAL, certified)
        if wish.channel_type is not None and wish.channel_data is not None:
            data = wish.channel_data
            self._binding = ChannelBinding(wish.channel_type.encode(), 1, len(data), data)
            binding = ctypes.byref(self._binding)
            self._call("sasl_setprop", self._connection, SASL_CHANNEL_BINDING, binding)
        offered = {wish.mechanism, wish.mechanism.removesuffix("-PLUS")}
        said, length, chosen = POINTER(), SIZE(), TEXT()
        code = self._library.sasl_client_start(
            *(self._connection, " ".join(offered).encode(), None),
            *(ctypes.byref(said), ctypes.byref(length), ctypes.byref(chosen)),
        )
        return self._said("sasl_client_start", code, said, length)

    def respond(self, challenge: bytes, /) -> bytes:
        said, length = POINTER(), SIZE()
        code = self._library.sasl_client_step(
            *(self._connection, challenge, len(challenge), None),
            *(ctypes.byref(said), ctypes.byref(length)),
        )
        return self._said("sasl_client_step", code, said, length) or b""

    def _said(
        self, name: str, code: int, said: ctypes.c_void_p, length: ctypes.c_uint
    ) -> bytes | None:
        if code not in (SASL_OK, SASL_CONTINUE):
            raise ClientRefuses(f"{name}: {code}")
        return ctypes.string_at(said, length.value) if said.value else None

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != SASL_OK:
            raise RuntimeError(f"{name}: {code}")


def callbacks(wish: Wish) -> tuple[Any, ...]:
    """Return the sasl_callback_t array that tells *wish*, and what must live as long as it."""
    password = os.fsencode(wish.password)
    # sasl_secret_t: a long and the bytes.
    secret = ctypes.create_string_buffer(
        len(password).to_bytes(ctypes.sizeof(ctypes.c_ulong), "little") + password
    )
    names = {
        SASL_CB_USER: os.fsencode(wish.authzid or ""),
        SASL_CB_AUTHNAME: os.fsencode(wish.user),
    }

    def tell_name(_context: Any, asked: int, name: Any, length: Any) -> int:
        name[0] = names[asked]
        if length:
            length[0] = len(names[asked])
        return SASL_OK

    def tell_password(_connection: Any, _context: Any, _asked: int, found: Any) -> int:
        found[0] = ctypes.addressof(secret)
        return SASL_OK

    def tell_realm(_context: Any, _asked: int, offered: Any, chosen: Any) -> int:
        chosen[0] = offered[0] if wish.realm is None else os.fsencode(wish.realm)
        return SASL_OK

    calls = (NAME(tell_name), PASSWORD(tell_password), REALM(tell_realm))
    addresses = [ctypes.cast(call, POINTER) for call in calls]
    array = (Callback * 5)(
        Callback(SASL_CB_USER, addresses[0]),
        Callback(SASL_CB_AUTHNAME, addresses[0]),
        Callback(SASL_CB_PASS, addresses[1]),
        Callback(SASL_CB_GETREALM, addresses[2]),
        Callback(SASL_CB_LIST_END),
    )
    return array, calls, secret, names


if __name__ == "__main__":
    serve(LibsaslClient())
