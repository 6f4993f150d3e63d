"""What every store of passwords promises; a backend's own test subclasses this."""

import inspect
import time
from collections.abc import Awaitable

from pysaslauthd.backends.base import Found, SecretStore
from pysaslauthd.model import Lookup, Reason, Rejected, Secret, Unavailable


def lookup_of(user: str, realm: str = "r") -> Lookup:
    """Ask about a user, now."""
    return Lookup(user, realm, time.monotonic())


async def found(answer: Found | Awaitable[Found]) -> Found:
    """Return what was found, whether it is here already or not."""
    return await answer if inspect.isawaitable(answer) else answer


class FoundContract:
    """Subclasses provide `store`, which knows joe of realm r with password pw."""

    async def test_it_has_a_user_s_password(self, store: SecretStore) -> None:
        assert await found(store.fetch(lookup_of("joe"))) == Secret(b"pw")

    async def test_it_says_that_there_is_no_such_user(self, store: SecretStore) -> None:
        answer = await found(store.fetch(lookup_of("nobody-here")))

        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.NO_SUCH_USER

    async def test_it_does_not_know_a_user_of_another_realm(self, store: SecretStore) -> None:
        assert isinstance(await found(store.fetch(lookup_of("joe", "other"))), Rejected)


class StoreContract(FoundContract):
    """For stores that may find nothing out: subclasses provide `broken`, too, which does not."""

    async def test_it_calls_an_outage_an_outage(self, broken: SecretStore) -> None:
        assert isinstance(await found(broken.fetch(lookup_of("joe"))), Unavailable)
