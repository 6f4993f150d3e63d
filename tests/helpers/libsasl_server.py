"""The server side of the C library libsasl2; see sasl_servers.

`python -m tests.helpers.libsasl_server CONFIGURATION_DIRECTORY REALM FLAGS`: the flags
are those of sasl_server_new. It lets everybody act as anybody (proxy policy).
"""

import ctypes
import os
import sys
from typing import Any

from tests.helpers.sasl_servers import BY_CERTIFICATE, HOST, REFUSAL, SERVICE, Reply, serve

SASL_OK = 0
SASL_CONTINUE = 1
SASL_PATH_TYPE_CONFIG = 1
SASL_SUCCESS_DATA = 4
SASL_USERNAME = 0
SASL_AUTH_EXTERNAL = 102
SASL_CB_LIST_END = 0
SASL_CB_PROXY_POLICY = 0x8001

STRING = (ctypes.c_char_p, ctypes.c_uint)
POLICY = ctypes.CFUNCTYPE(ctypes.c_int, *(ctypes.c_void_p,) * 2, *STRING * 3, ctypes.c_void_p)
LET_THEM = POLICY(lambda *_who: SASL_OK)


class Callback(ctypes.Structure):
    """sasl_callback_t."""

    _fields_ = (("id", ctypes.c_ulong), ("call", ctypes.c_void_p), ("context", ctypes.c_void_p))


CALLBACKS = (Callback * 2)(
    Callback(SASL_CB_PROXY_POLICY, ctypes.cast(LET_THEM, ctypes.c_void_p)),
    Callback(SASL_CB_LIST_END),
)


class LibsaslServer:
    """The application `sample`, which reads sample.conf."""

    def __init__(self, directory: str, realm: str, flags: str) -> None:
        self._library = ctypes.CDLL("libsasl2.so.2")
        self._realm = realm.encode()
        self._flags = int(flags)
        self._connection = ctypes.c_void_p()
        self._call("sasl_set_path", SASL_PATH_TYPE_CONFIG, os.fsencode(directory))
        self._call("sasl_server_init", CALLBACKS, b"sample")

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        self._library.sasl_dispose(ctypes.byref(self._connection))
        addresses_and_callbacks = [None] * 3
        self._call(
            "sasl_server_new",
            *(SERVICE.encode(), HOST.encode(), self._realm, *addresses_and_callbacks),
            *(self._flags, ctypes.byref(self._connection)),
        )
        certified = ctypes.c_char_p(BY_CERTIFICATE.encode())
        self._call("sasl_setprop", self._connection, SASL_AUTH_EXTERNAL, certified)
        return self._reply("sasl_server_start", mechanism.encode(), initial)

    def answer(self, response: bytes, /) -> Reply:
        return self._reply("sasl_server_step", response)

    def _reply(self, name: str, *arguments: bytes | None) -> Reply:
        message = arguments[-1]
        said, length = ctypes.c_void_p(), ctypes.c_uint()
        code = getattr(self._library, name)(
            *(self._connection, *arguments, len(message or b"")),
            *(ctypes.byref(said), ctypes.byref(length)),
        )
        data = ctypes.string_at(said, length.value) if said.value else None
        if code == SASL_CONTINUE:
            return Reply(is_challenge=True, data=data)
        return Reply(is_success=True, data=data, user=self._user()) if code == SASL_OK else REFUSAL

    def _user(self) -> str:
        user = ctypes.c_char_p()
        self._call("sasl_getprop", self._connection, SASL_USERNAME, ctypes.byref(user))
        return (user.value or b"").decode()

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != SASL_OK:
            raise RuntimeError(f"{name}: {code}")


if __name__ == "__main__":
    serve(LibsaslServer(*sys.argv[1:]))
