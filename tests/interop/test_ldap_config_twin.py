"""The C daemon's file as the C daemon reads it, seen in the searches that it makes, beside ours."""

from pathlib import Path

import pytest

from pysaslauthd.config.ldap import read_file
from pysaslauthd.config.tables import Ldap
from pysaslauthd.wire import ldap
from pysaslauthd.wire.ldap import SearchRules
from pysaslauthd.wire.ldap_filter import parse
from tests.helpers.ber import Tree, tree
from tests.helpers.ldap_recorder import SEARCH
from tests.helpers.ldap_twin import Login, twin

pytestmark = [pytest.mark.interop("saslauthd"), pytest.mark.usefixtures("as_root")]

WANTED = slice(0, 7)  # of a search all but the attributes: the C daemon asks for one named dn


def theirs(*lines: str) -> list[list[Tree]]:
    """Return the searches that these lines make for a user."""
    with twin(*lines) as made:
        return [content[WANTED] for content in made.asked(Login("joe"), SEARCH)]


def our_table(directory: Path, *lines: str) -> Ldap:
    file = directory / "saslauthd.conf"
    file.write_text("\n".join([*lines, ""]), newline="")
    return read_file(str(file), {}, "/").table


def ours(table: Ldap) -> list[Tree]:
    """Return the search that a table without tokens makes."""
    rules = SearchRules(table.scope, table.deref, table.size_limit, table.time_limit)
    filter_ = parse(table.filter.replace("%u", "joe")).encode(lambda _: b"")
    made = ldap.search(table.search_base.encode(), rules, filter_)
    content: list[Tree] = tree(made)[1]
    return content[WANTED]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="defaults"),
        pytest.param(["ldap_scope: one", "ldap_deref: always"], id="words"),
        pytest.param(["LDAP_SCOPE: BASE", "ldap_Deref: Find"], id="upper-case"),
        pytest.param(["ldap_scope: one ", "ldap_deref: never ever"], id="bad-words"),
        pytest.param(["ldap_deref: search", "ldap_deref: find"], id="the-last-counts"),
        pytest.param(["ldap_deref: search", "ldap_deref: no"], id="a-bad-word-last"),
        pytest.param(["ldap_size_limit: 7x", "ldap_time_limit: 2147483647"], id="numbers"),
        pytest.param(["ldap_time_limit: 0", "ldap_size_limit: 0"], id="zeros"),
        pytest.param(["", "# a", "\t ldap_search_base: \t dc=a , dc=b  "], id="blanks"),
        pytest.param(["ldap_search_base:dc=é", "ldap_filter: uid=x "], id="without-parentheses"),
        pytest.param(['ldap_search_base: "dc=e"', "ldap_filter: (a=b\\2a)"], id="quotes"),
        pytest.param(["ldap_filter: (a=1)", "ldap_filter: (a=2)"], id="the-last-filter"),
        pytest.param(["ldap_colour: green", "other: x", "krb5_keytab: x"], id="unknown-keys"),
        pytest.param(["\r", "ldap_use_sasl: no\r", "#x\r"], id="line-ends-of-windows"),
    ],
)
def test_the_same_lines_make_the_same_search(tmp_path: Path, lines: list[str]) -> None:
    assert theirs(*lines) == [ours(our_table(tmp_path, *lines))]


class TestWhatDiffers:
    def test_line_ends_of_windows_are_no_part_of_a_value(self, tmp_path: Path) -> None:
        lines = ["ldap_search_base: dc=e\r", "ldap_scope: one\r"]

        ((base, scope, *_),) = theirs(*lines)

        assert (base, scope) == ((0x04, b"dc=e\r"), (0x0A, b"\2"))
        assert our_table(tmp_path, *lines) == Ldap(search_base="dc=e", scope="one")

    def test_sub_takes_back_another_scope(self, tmp_path: Path) -> None:
        lines = ["ldap_scope: one", "ldap_scope: sub"]

        ((_, scope, *_),) = theirs(*lines)

        assert scope == (0x0A, b"\1")
        assert our_table(tmp_path, *lines).scope == "sub"

    @pytest.mark.parametrize("value", ["none", "x5", "-"])
    def test_what_is_no_number_is_not_zero(self, tmp_path: Path, value: str) -> None:
        line = f"ldap_time_limit: {value}"

        ((*_, seconds, _, _),) = theirs(line)

        assert seconds == (0x02, b"\0")
        assert our_table(tmp_path, line).time_limit == 5

    @pytest.mark.parametrize("filter_", ["(a=b", "(a=**)", "(a=b) ", "(a>=*)"])
    def test_a_filter_that_is_none_makes_no_search(self, filter_: str) -> None:
        """Ours refuses it at the start, but for blanks at its end."""
        assert theirs(f"ldap_filter: {filter_}") == []
