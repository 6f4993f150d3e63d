"""What the service's identity asks: which entry a user has, and whether it is in a group."""

import logging
from typing import NamedTuple

from pysaslauthd.backends.ldap import results
from pysaslauthd.backends.ldap.connection import ServerFailed
from pysaslauthd.backends.ldap.results import explain
from pysaslauthd.backends.ldap.server import Server
from pysaslauthd.backends.ldap.templates import Subject, Template
from pysaslauthd.backends.ldap.verdicts import NAME, CannotTell
from pysaslauthd.model import Reason, Rejected
from pysaslauthd.wire import ldap
from pysaslauthd.wire.ldap import NO_ATTRIBUTES, Entry, Result, SearchRules
from pysaslauthd.wire.ldap_filter import FilterProblem

log = logging.getLogger(__name__)


class Search:
    """A search below *base*; FilterProblem where *filter_* is no filter."""

    def __init__(
        self,
        base: str,
        filter_: str,
        rules: SearchRules,
        attributes: tuple[bytes, ...] = NO_ATTRIBUTES,
    ) -> None:
        self._base = Template(base)
        self._text = Template(filter_)
        self._filter = self._text.parse_filter()
        self._rules = rules
        self._attributes = attributes

    async def find(self, server: Server, subject: Subject) -> list[Entry]:
        """Return what fits *subject*: of several entries two.

        ServerFailed and CannotTell where that could not be found out.
        """
        base = self._base.as_dn(subject)
        try:
            filter_ = self._filter.encode(subject.value)
        except FilterProblem:  # a value in an attribute's name: there is no such attribute
            return []
        operation = ldap.search(base, self._rules, filter_, self._attributes)
        result, entries = await server.ask(ldap.SEARCH_DONE, operation)
        match result.code:
            case results.SUCCESS:
                return entries
            case results.SIZE_LIMIT_EXCEEDED if entries:
                return entries * 2  # there are more than those
            case results.NO_SUCH_OBJECT | results.INVALID_DN_SYNTAX if self._base.tokens:
                return []
            case results.NO_SUCH_OBJECT:
                raise CannotTell(f"{server.name}: {_no_base(_shown(base))}")
        raise _no_answer(server, f"it does not search below {_shown(base)!r}", result)

    @property
    def tokens(self) -> frozenset[str]:
        """The tokens whose values it depends on."""
        return self._base.tokens | self._text.tokens

    def describe(self, subject: Subject) -> str:
        """Return the filter as it is for *subject*, for people."""
        return self._text.as_filter_text(subject)


async def find_entry(search: Search, server: Server, subject: Subject) -> Entry | Rejected:
    """Return the one entry that *subject* has."""
    found = await search.find(server, subject)
    if len(found) == 1 and found[0].dn.strip():  # an empty name, the root's, lets anybody in
        return found[0]
    if not found:
        log.debug("Entry not found (%s).", search.describe(subject))
        return Rejected(Reason.NO_SUCH_USER, NAME, detail="no such user")
    log.debug("Duplicate entries found (%s).", search.describe(subject))
    return Rejected(Reason.DENIED, NAME, detail="several entries have that name")


class GroupAttribute(NamedTuple):
    """A group whose *attribute* lists its members by their names."""

    group: Template
    attribute: bytes

    @property
    def wants_name(self) -> bool:
        """Whether the name of the user's entry matters."""
        return True

    async def has(self, server: Server, subject: Subject) -> bool:
        """Say whether *subject* is a member. ServerFailed, CannotTell: see `Search.find`."""
        group = self.group.as_dn(subject)
        operation = ldap.compare(group, self.attribute, subject.dn)
        result, _ = await server.ask(ldap.COMPARE_RESPONSE, operation)
        match result.code:
            case results.COMPARE_TRUE:
                return True
            case results.COMPARE_FALSE | results.NO_SUCH_ATTRIBUTE:
                return False
            case results.NO_SUCH_OBJECT | results.INVALID_DN_SYNTAX if self.group.tokens:
                return False
        asked = f"it does not say who is in {_shown(group)!r} by {_shown(self.attribute)}"
        raise _no_answer(server, f"{asked} (ldap_group_dn, ldap_group_attr)", result)


class GroupFilter(NamedTuple):
    """A group, or whatever, that is found where its member is one."""

    search: Search

    @property
    def wants_name(self) -> bool:
        """Whether the name of the user's entry matters."""
        return "D" in self.search.tokens

    async def has(self, server: Server, subject: Subject) -> bool:
        """Say whether *subject* is a member. ServerFailed, CannotTell: see `Search.find`."""
        return bool(await self.search.find(server, subject))


def _no_base(base: str) -> str:
    if not base:
        return "it has nothing to search below: set ldap_search_base"
    return f"there is no {base!r} to search below, or the service may not see it (ldap_bind_dn)"


def _no_answer(server: Server, problem: str, result: Result) -> Exception:
    if result.code in results.ELSEWHERE:
        return ServerFailed(f"{server.name}: {explain(result)}")
    return CannotTell(f"{server.name}: {problem}: {explain(result)}")


def _shown(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
