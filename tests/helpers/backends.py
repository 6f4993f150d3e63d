"""A backend as the daemon makes it from settings, in the test's own event loop."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from pysaslauthd.backends.base import PasswordVerifier
from pysaslauthd.config.settings import Settings
from pysaslauthd.engine.names import Names
from pysaslauthd.model import AuthRequest, AuthResult, Origin, Secret
from pysaslauthd.plugins import find_mechanism
from tests.contract.verifier import settled
from tests.helpers.workers import serving

HOST = "host.example.org"


class Backend:
    """What answers by *settings*: names are joined as they say, and the deadline is not kept."""

    def __init__(self, verifier: PasswordVerifier, settings: Settings) -> None:
        self.verifier = verifier
        self._names = Names(settings.combine_realm, settings.local_domain or HOST)

    async def ask(
        self, user: str, password: str | bytes, realm: str = "", service: str = "imap"
    ) -> AuthResult:
        """Return the verdict on a login."""
        secret = Secret(password.encode() if isinstance(password, str) else password)
        request = AuthRequest(user, secret, realm, Origin(service), time.monotonic())
        asked = self._names.for_backend(request, self.verifier.naming)
        return await settled(self.verifier.verify(asked))


@asynccontextmanager
async def backend(settings: Settings) -> AsyncIterator[Backend]:
    """Configure, check, make and open what *settings* name; close it when the block ends.

    Its workers, if it has any, are children of the test.
    """
    mechanism = find_mechanism(settings)
    settings = mechanism.configure(settings)
    mechanism.check(settings)
    work = mechanism.work
    source = serving() if work is None else serving(partial(work, settings))
    made = mechanism.make(settings, source)
    await made.open()
    try:
        yield Backend(made, settings)
    finally:
        await made.close()
        source.end()
