"""The server side of GNU SASL's library, which `gsasl` is a command for; see sasl_servers.

`python -m tests.helpers.gsasl_server REALM USERS`: the users are their names and
passwords, as JSON; surrogate escapes stand for bytes that are no UTF-8.
"""

import ctypes
import json
import os
import sys

from tests.helpers.sasl_servers import HOST, REFUSAL, SERVICE, Reply, serve

GSASL_OK = 0
GSASL_NEEDS_MORE = 1
GSASL_AUTHENTICATION_ERROR = 31
GSASL_NO_CALLBACK = 51
GSASL_AUTHID = 1
GSASL_AUTHZID = 2
GSASL_PASSWORD = 3
GSASL_SERVICE = 5
GSASL_HOSTNAME = 6
GSASL_REALM = 11
GSASL_QOPS = 13
GSASL_VALIDATE_SIMPLE = 500
GSASL_VALIDATE_EXTERNAL = 501

LIBRARY = ctypes.CDLL("libgsasl.so.18")
POINTER = ctypes.c_void_p
ANSWERS = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, ctypes.c_int)
LIBRARY.gsasl_property_fast.argtypes = (POINTER, ctypes.c_int)
LIBRARY.gsasl_property_fast.restype = ctypes.c_char_p
LIBRARY.gsasl_property_set.argtypes = (POINTER, ctypes.c_int, ctypes.c_char_p)
LIBRARY.gsasl_free.argtypes = (POINTER,)


class GsaslServer:
    """Keeps passwords as they are, and lets everybody act as anybody."""

    def __init__(self, realm: str, users: str) -> None:
        self._passwords = {os.fsencode(user): os.fsencode(pw) for user, pw in json.loads(users)}
        self._properties = {
            GSASL_SERVICE: SERVICE.encode(),
            GSASL_HOSTNAME: HOST.encode(),
            GSASL_REALM: realm.encode(),
            GSASL_QOPS: b"qop-auth",
        }
        self._library, self._session = POINTER(), POINTER()
        call("gsasl_init", ctypes.byref(self._library))
        self._callback = ANSWERS(lambda _library, session, asked: self._tell(session, asked))
        LIBRARY.gsasl_callback_set(self._library, self._callback)

    def start(self, mechanism: str, initial: bytes | None, /) -> Reply:
        LIBRARY.gsasl_finish(self._session)
        self._session = POINTER()
        session = ctypes.byref(self._session)
        call("gsasl_server_start", self._library, mechanism.encode(), session)
        return self.answer(initial or b"")

    def answer(self, response: bytes, /) -> Reply:
        said, length = POINTER(), ctypes.c_size_t()
        code = LIBRARY.gsasl_step(
            *(self._session, response, ctypes.c_size_t(len(response))),
            *(ctypes.byref(said), ctypes.byref(length)),
        )
        data = ctypes.string_at(said, length.value) if said.value else None
        LIBRARY.gsasl_free(said)
        if code == GSASL_NEEDS_MORE:
            return Reply(is_challenge=True, data=data)
        return Reply(is_success=True, data=data, user=self._user()) if code == GSASL_OK else REFUSAL

    def _user(self) -> str | None:
        known = (self._known(self._session, name) for name in (GSASL_AUTHZID, GSASL_AUTHID))
        return next((user.decode() for user in known if user), None)

    def _known(self, session: ctypes.c_void_p, name: int) -> bytes:
        return LIBRARY.gsasl_property_fast(session, name) or b""

    def _tell(self, session: ctypes.c_void_p, asked: int) -> int:
        password = self._passwords.get(self._known(session, GSASL_AUTHID))
        if asked == GSASL_VALIDATE_EXTERNAL:
            return GSASL_OK
        if asked == GSASL_VALIDATE_SIMPLE:
            is_right = self._known(session, GSASL_PASSWORD) == password
            return GSASL_OK if is_right else GSASL_AUTHENTICATION_ERROR
        value = password if asked == GSASL_PASSWORD else self._properties.get(asked)
        if value is None:
            return GSASL_NO_CALLBACK
        LIBRARY.gsasl_property_set(session, asked, value)
        return GSASL_OK


def call(name: str, *arguments: object) -> None:
    code = getattr(LIBRARY, name)(*arguments)
    if code != GSASL_OK:
        raise RuntimeError(f"{name}: {code}")


if __name__ == "__main__":
    serve(GsaslServer(*sys.argv[1:]))
