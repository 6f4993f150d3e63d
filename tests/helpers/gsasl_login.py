"""The client side of GNU SASL's library, which `gsasl` is a command for; see sasl_clients."""

import base64
import ctypes
import os

from tests.helpers.gsasl_server import (
    GSASL_AUTHID,
    GSASL_AUTHZID,
    GSASL_HOSTNAME,
    GSASL_NEEDS_MORE,
    GSASL_OK,
    GSASL_PASSWORD,
    GSASL_REALM,
    GSASL_SERVICE,
    LIBRARY,
    POINTER,
    call,
)
from tests.helpers.sasl_clients import ClientRefuses, Wish, serve
from tests.helpers.sasl_servers import HOST, SERVICE

GSASL_ANONYMOUS_TOKEN = 4
GSASL_CB_TLS_UNIQUE = 18
GSASL_CB_TLS_EXPORTER = 25
CHANNELS = {"tls-unique": GSASL_CB_TLS_UNIQUE, "tls-exporter": GSASL_CB_TLS_EXPORTER}
SERVER_BEGINS = {"CRAM-MD5", "DIGEST-MD5", "LOGIN"}


class GsaslClient:
    """It is told all that it may want to know before it begins."""

    def __init__(self) -> None:
        self._library, self._session = POINTER(), POINTER()
        call("gsasl_init", ctypes.byref(self._library))

    def begin(self, wish: Wish, /) -> bytes | None:
        LIBRARY.gsasl_finish(self._session)
        self._session = POINTER()
        session = ctypes.byref(self._session)
        call("gsasl_client_start", self._library, wish.mechanism.encode(), session)
        self._tell(GSASL_SERVICE, SERVICE)
        self._tell(GSASL_HOSTNAME, HOST)
        self._tell(GSASL_ANONYMOUS_TOKEN, wish.user)
        self._tell(GSASL_AUTHID, wish.user)
        self._tell(GSASL_PASSWORD, wish.password)
        self._tell(GSASL_AUTHZID, wish.authzid)
        self._tell(GSASL_REALM, wish.realm)
        if wish.channel_type is not None and wish.channel_data is not None:
            data = base64.b64encode(wish.channel_data).decode()
            self._tell(CHANNELS[wish.channel_type], data)
        return None if wish.mechanism in SERVER_BEGINS else self.respond(b"")

    def respond(self, challenge: bytes, /) -> bytes:
        said, length = POINTER(), ctypes.c_size_t()
        code = LIBRARY.gsasl_step(
            *(self._session, challenge, ctypes.c_size_t(len(challenge))),
            *(ctypes.byref(said), ctypes.byref(length)),
        )
        if code not in (GSASL_OK, GSASL_NEEDS_MORE):
            raise ClientRefuses(f"gsasl_step: {code}")
        data = ctypes.string_at(said, length.value) if said.value else b""
        LIBRARY.gsasl_free(said)
        return data

    def _tell(self, name: int, value: str | None) -> None:
        if value is not None:
            LIBRARY.gsasl_property_set(self._session, name, os.fsencode(value))


if __name__ == "__main__":
    serve(GsaslClient())
