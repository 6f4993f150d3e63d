"""The C daemon's files: which lines are settings, and what is said of those that are none."""

from pathlib import Path

import pytest

from pysaslauthd.config.classic import Line, read_lines, with_identity
from pysaslauthd.config.tables import Rimap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saslauthd.conf"


def settings(file: Path, content: bytes) -> list[tuple[str, bytes]]:
    file.write_bytes(content)
    return [(line.key, line.value) for line in read_lines(str(file))]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        pytest.param(b"key: value\n", b"value", id="plain"),
        pytest.param(b"key: value", b"value", id="no-end-of-line"),
        pytest.param(b"key:value\n", b"value", id="no-blank"),
        pytest.param(b"  \tkey: \t value\n", b"value", id="blanks-before"),
        pytest.param(b"KEY: value\n", b"value", id="upper-case"),
        pytest.param(b'key: "value"  \n', b'"value"  ', id="quotes-and-blanks-after"),
        pytest.param(b"key: value # no comment\n", b"value # no comment", id="no-comment"),
        pytest.param(b"key: a: b\n", b"a: b", id="another-colon"),
        pytest.param(b"key: v\xe4\rlue\n", b"v\xe4\rlue", id="any-bytes"),
        pytest.param(b"key: value\r\n", b"value", id="crlf"),
    ],
)
def test_a_line_is_a_key_and_a_value(file: Path, content: bytes, value: bytes) -> None:
    assert settings(file, content) == [("key", value)]


def test_comments_and_empty_lines_are_skipped(file: Path) -> None:
    assert settings(file, b"\n# a: b\n \t\n  # c: d\nkey: v\n") == [("key", b"v")]


def test_the_order_and_repetitions_stay(file: Path) -> None:
    assert settings(file, b"b: 1\na: 2\nb: 3\n") == [("b", b"1"), ("a", b"2"), ("b", b"3")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"a: b\nkey value\n", "line 2: no colon separator", id="no-colon"),
        pytest.param(b"key : value\n", "line 1: no colon separator", id="blank-before-colon"),
        pytest.param(b"\xe4: value\n", "line 1: no colon separator", id="odd-key"),
        pytest.param(b"key:  \n", "line 1: keyword key: no value", id="no-value"),
    ],
)
def test_a_line_that_is_no_setting_is_named(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)

    with pytest.raises(StartupError) as refused:
        read_lines(str(file))

    assert str(refused.value) == f"{file}: {problem}"


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(StartupError, match=r"cannot open /nonexistent: No such file"):
        read_lines("/nonexistent")


@pytest.mark.parametrize("value", [b"1", b"yes", b"y", b"true", b"on", b"only"])
def test_the_c_daemons_words_for_yes(value: bytes) -> None:
    assert Line("", "", value).switch is True


@pytest.mark.parametrize("value", [b"0", b"no", b"nonsense", b"false", b"off", b"often"])
def test_the_c_daemons_words_for_no(value: bytes) -> None:
    assert Line("", "", value).switch is False


@pytest.mark.parametrize("value", [b"Yes", b"TRUE", b"o", b"2", b"-1"])
def test_what_is_neither_yes_nor_no(value: bytes) -> None:
    assert Line("", "", value).switch is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"5", 5),
        (b"-5", -5),
        (b"12s", 12),
        (b"x5", None),
        (b"- 5", None),
        (b"9" * 5000, 999_999_999_999_999_999),
    ],
    ids=["plain", "negative", "letter", "no-digit", "no-digit-behind-minus", "far-too-large"],
)
def test_a_number_is_what_a_value_begins_with(value: bytes, number: int | None) -> None:
    assert Line("", "", value).number == number


def test_a_text_that_is_not_utf8_is_named() -> None:
    with pytest.raises(StartupError, match=r"f: line 3: ldap_filter is not UTF-8"):
        Line("f: line 3", "ldap_filter", b"\xe4").text  # noqa: B018 (it raises)


def test_a_text_with_a_nul_is_named() -> None:
    with pytest.raises(StartupError, match=r"f: line 3: ldap_filter has a NUL byte"):
        Line("f: line 3", "ldap_filter", b"a\0b").text  # noqa: B018 (it raises)


def test_certificate_and_key_are_read_into_one_text(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("CERT")
    (tmp_path / "key").write_text("KEY")
    table = Rimap(tls_cert=str(tmp_path / "cert"), tls_key=str(tmp_path / "key"))

    assert with_identity(table, "rimap").tls_identity == Secret(b"CERT\nKEY\n")


def test_without_certificate_and_key_there_is_nothing_to_read() -> None:
    table = Rimap(tls_identity=Secret(b"both"))

    assert with_identity(table, "rimap") is table


@pytest.mark.parametrize("table", [Rimap(tls_cert="/c"), Rimap(tls_key="/k")])
def test_one_without_the_other_is_refused(table: Rimap) -> None:
    with pytest.raises(StartupError, match="rimap: tls_cert and tls_key belong together"):
        with_identity(table, "rimap")


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("CERT")
    table = Rimap(tls_cert=str(tmp_path / "cert"), tls_key="/nonexistent")

    with pytest.raises(StartupError, match="rimap: cannot read /nonexistent: No such file"):
        with_identity(table, "rimap")
