"""libldap's own settings: which files and variables are read, and which of them wins."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pysaslauthd.config.classic import Line
from pysaslauthd.config.libldap import OPTIONS, SYSTEM_FILES, USER_ONLY, read_options


class Place:
    """A system's file, a home and a run directory of a test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.system = root / "ldap.conf"
        self.home = root / "home"
        self.run = root / "run"
        self.home.mkdir()
        self.run.mkdir()

    def read(self, variables: Mapping[str, str] | None = None) -> dict[str, Line]:
        environment = {"HOME": str(self.home), **(variables or {})}
        return read_options(environment, str(self.run), (str(self.system),))

    def values(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        return {option: line.text for option, line in self.read(variables).items()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_any_file_there_are_no_options(place: Place) -> None:
    assert place.read() == {}


def test_the_systems_files_are_debians_and_fedoras() -> None:
    assert SYSTEM_FILES == ("/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf")


@pytest.mark.parametrize(
    ("content", "options"),
    [
        pytest.param("TLS_CACERT /a", {"TLS_CACERT": "/a"}, id="plain"),
        pytest.param("tls_cacert\t/a b \t\r\n", {"TLS_CACERT": "/a b"}, id="case-and-blanks"),
        pytest.param("  TLS_CACERT /a\n", {"TLS_CACERT": "/a"}, id="blanks-before"),
        pytest.param("#TLS_CACERT /a\n # TLS_CACERT /a\n", {}, id="comments"),
        pytest.param("TLS_REQCERT never # x", {"TLS_REQCERT": "never # x"}, id="no-comment"),
        pytest.param('TLS_CACERT "/a"', {"TLS_CACERT": '"/a"'}, id="quotes"),
        pytest.param("TLS_CACERT\nTLS_CACERT \n\n", {}, id="no-value"),
        pytest.param("TLS_CACERT=/a\nTLS_CACERT: /a", {}, id="other-forms"),
        pytest.param("URI ldap://x/\nBASE dc=x\nTLS_REQSAN hard", {}, id="other-options"),
        pytest.param("TLS_CACERT /a\nTLS_CACERT /b", {"TLS_CACERT": "/b"}, id="the-last-counts"),
    ],
)
def test_a_line_is_an_option_and_a_value(
    place: Place, content: str, options: dict[str, str]
) -> None:
    place.system.write_text(content)

    assert place.values() == options


def test_an_option_has_its_place_for_messages(place: Place) -> None:
    place.system.write_text("# x\ntls_cacert /a\n")

    read = place.read({"LDAPTLS_REQCERT": "never"})

    assert read["TLS_CACERT"] == Line(f"{place.system}: line 2", "TLS_CACERT", b"/a")
    assert read["TLS_REQCERT"] == Line("environment", "LDAPTLS_REQCERT", b"never")


LATER_WINS = ["system", "~/ldaprc", "~/.ldaprc", "./ldaprc", "$LDAPCONF"]
LATER_WINS += ["~/$LDAPRC", "~/.$LDAPRC", "./$LDAPRC", "variable"]


@pytest.mark.parametrize("last", range(len(LATER_WINS)), ids=LATER_WINS)
def test_what_is_read_later_wins(place: Place, last: int) -> None:
    files = [
        place.system,
        place.home / "ldaprc",
        place.home / ".ldaprc",
        place.run / "ldaprc",
        place.root / "conf",
        place.home / "mine",
        place.home / ".mine",
        place.run / "mine",
    ]
    for number, file in enumerate(files[: last + 1]):
        file.write_text(f"TLS_CACERT /{number}")
    variables = {"LDAPCONF": str(place.root / "conf"), "LDAPRC": "mine"}
    last_variable = {"LDAPTLS_CACERT": "/8"} if last == len(files) else {}

    assert place.values({**variables, **last_variable}) == {"TLS_CACERT": f"/{last}"}


def test_later_files_add_to_earlier_ones(place: Place) -> None:
    place.system.write_text("TLS_CACERT /a\nTLS_REQCERT never")
    (place.home / ".ldaprc").write_text("TLS_CERT /c")

    assert place.values({"LDAPTLS_KEY": "/k"}) == {
        "TLS_CACERT": "/a",
        "TLS_REQCERT": "never",
        "TLS_CERT": "/c",
        "TLS_KEY": "/k",
    }


ALL = "\n".join(f"{option} x" for option in OPTIONS)


def test_options_of_users_do_not_count_in_the_systems_files(place: Place) -> None:
    place.system.write_text(ALL)
    (place.root / "conf").write_text(ALL)

    assert set(place.values({"LDAPCONF": str(place.root / "conf")})) == OPTIONS - USER_ONLY


@pytest.mark.parametrize("name", ["home/ldaprc", "home/.ldaprc", "run/ldaprc"])
def test_all_options_count_in_users_files(place: Place, name: str) -> None:
    (place.root / name).write_text(ALL)

    assert set(place.values()) == OPTIONS


def test_all_options_count_as_variables(place: Place) -> None:
    assert set(place.values({f"LDAP{option}": "x" for option in OPTIONS})) == OPTIONS


def test_an_empty_variable_takes_an_option_back(place: Place) -> None:
    place.system.write_text("TLS_CACERT /a\nTLS_REQCERT never")

    assert place.values({"LDAPTLS_CACERT": ""}) == {"TLS_REQCERT": "never"}


@pytest.mark.parametrize("value", ["", "1", "no"])
def test_a_variable_forbids_it_all(place: Place, value: str) -> None:
    place.system.write_text("TLS_CACERT /a")

    assert place.values({"LDAPNOINIT": value, "LDAPTLS_CACERT": "/b"}) == {}


def test_a_file_that_a_variable_names_is_relative_to_the_run_directory(place: Place) -> None:
    (place.run / "conf").write_text("TLS_CACERT /a")

    assert place.values({"LDAPCONF": "conf"}) == {"TLS_CACERT": "/a"}


def test_without_a_home_there_are_no_files_in_it(place: Place) -> None:
    (place.run / "ldaprc").write_text("TLS_CACERT /a")

    assert set(read_options({}, str(place.run), ())) == {"TLS_CACERT"}


@pytest.mark.parametrize("variable", ["LDAPCONF", "LDAPRC"])
@pytest.mark.parametrize("name", ["", "missing", "."])
def test_a_file_that_cannot_be_read_counts_for_nothing(
    place: Place, variable: str, name: str
) -> None:
    assert place.values({variable: name}) == {}


def test_values_may_be_any_bytes(place: Place) -> None:
    place.system.write_bytes(b"TLS_CACERT /\xe4\n\xff\xfe x\n")

    read = place.read({"LDAPTLS_CACERTDIR": "/\udce4"})

    assert read["TLS_CACERT"].value == b"/\xe4"
    assert read["TLS_CACERTDIR"].value == b"/\xe4"


def test_a_long_line_costs_no_more_than_its_length(place: Place) -> None:
    place.system.write_bytes(b"TLS_CACERT /" + b" " * 1_000_000 + b"x\n" + b" " * 1_000_000)

    assert len(place.values()["TLS_CACERT"]) == 1_000_002
