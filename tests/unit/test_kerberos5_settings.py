"""The C daemon's file for kerberos5: what its keys set, and where settings come from."""

import os
from pathlib import Path

import pytest

from pysaslauthd.config.kerberos5 import read_kerberos5
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Kerberos5
from pysaslauthd.errors import StartupError
from pysaslauthd.plugins import MECHANISMS, kerberos5

TABLE = Kerberos5(keytab="/table.keytab")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saslauthd.conf"


def table_of(file: Path, content: str) -> Kerberos5:
    file.write_text(content)
    return read_kerberos5(str(file))


def configured(**values: object) -> Settings:
    settings = Settings(mechanism="kerberos5", **values)  # type: ignore[arg-type]  # any of them
    return MECHANISMS["kerberos5"].configure(settings)


@pytest.mark.parametrize(
    ("line", "table"),
    [
        ("krb5_keytab: /etc/mail.keytab", Kerberos5(keytab="/etc/mail.keytab")),
        ("krb5_verify_principal: imap", Kerberos5(verify_principal="imap")),
        ("krb5_servername: mail.example.org", Kerberos5(servername="mail.example.org")),
        ("krb5_conv_krb4_instance: yes", Kerberos5(conv_krb4_instance=True)),
        ("krb5_uppercase_realm: 1", Kerberos5(uppercase_realm=True)),
        ("krb5_uppercase_realm: no", Kerberos5()),
        ("krb5_imap_instance: mail", Kerberos5(instances={"imap": "mail"})),
        ("KRB5_Keytab: /K", Kerberos5(keytab="/K")),
        ("# krb5_keytab: /etc/mail.keytab", Kerberos5()),
    ],
)
def test_a_key_sets_what_it_is_named_after(file: Path, line: str, table: Kerberos5) -> None:
    assert table_of(file, f"{line}\n") == table


def test_the_first_of_a_key_counts(file: Path) -> None:
    first = "krb5_keytab: /1\nkrb5_uppercase_realm: yes\nkrb5_imap_instance: a\n"
    second = "krb5_keytab: /2\nkrb5_uppercase_realm: no\nkrb5_imap_instance: b\n"

    table = table_of(file, first + second)

    assert table == Kerberos5(keytab="/1", uppercase_realm=True, instances={"imap": "a"})


@pytest.mark.usefixtures("seen_logs")
def test_keys_of_other_backends_are_none_of_its_business(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(file, "ldap_servers: ldap://localhost/\nhttpform_host: localhost\n")

    assert table == Kerberos5()
    assert not caplog.records


@pytest.mark.usefixtures("seen_logs")
@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("krb5_keytabs: /k", "line 2: unknown key krb5_keytabs"),
        ("krb5__instance: x", "line 2: unknown key krb5__instance"),
        (
            "krb5_uppercase_realm: Yes",
            "line 2: krb5_uppercase_realm is neither yes nor no: taken for no",
        ),
    ],
)
def test_what_nobody_understands_is_logged_with_its_place(
    file: Path, caplog: pytest.LogCaptureFixture, line: str, warning: str
) -> None:
    table = table_of(file, f"\n{line}\n")

    assert table == Kerberos5()
    assert caplog.messages == [f"{file}: {warning}"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("krb5_keytab\n", "line 1: no colon separator"),
        ("krb5_keytab:  \n", "line 1: keyword krb5_keytab: no value"),
        ("ldap_filter (uid=%u)\n", "line 1: no colon separator"),
    ],
)
def test_a_file_that_is_none_ends_the_start_in_the_c_daemons_words(
    file: Path, content: str, problem: str
) -> None:
    file.write_text(content)

    with pytest.raises(StartupError) as refused:
        configured(mechanism_option=str(file))

    assert refused.value.lines == (
        f"auth_krb5_init {file}: {problem}",
        "failed to initialize mechanism kerberos5",
    )


def test_a_file_that_is_not_there_ends_the_start_in_the_c_daemons_words(file: Path) -> None:
    with pytest.raises(StartupError) as refused:
        configured(mechanism_option=str(file))

    assert refused.value.lines[0].startswith(f"auth_krb5_init cfile_read: cannot open {file}")


class TestPrecedence:
    @pytest.fixture
    def default_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "default.conf"
        path.write_text("krb5_keytab: /default.keytab\n")
        monkeypatch.setattr(kerberos5, "DEFAULT_FILE", str(path))
        return path

    @pytest.fixture
    def option(self, file: Path) -> str:
        file.write_text("krb5_servername: option.example\n")
        return str(file)

    @pytest.mark.usefixtures("default_file")
    def test_the_file_of_the_flag_is_all_that_counts(self, option: str) -> None:
        settings = configured(mechanism_option=option, kerberos5=TABLE)

        assert settings.kerberos5 == Kerberos5(servername="option.example")

    @pytest.mark.usefixtures("default_file")
    def test_the_table_comes_before_the_default_file(self) -> None:
        assert configured(kerberos5=TABLE).kerberos5 == TABLE

    @pytest.mark.usefixtures("default_file")
    def test_the_default_file_comes_before_the_defaults(self) -> None:
        assert configured().kerberos5 == Kerberos5(keytab="/default.keytab")

    def test_the_default_file_need_not_be_there(self, default_file: Path) -> None:
        default_file.unlink()

        assert configured().kerberos5 is None

    def test_a_default_file_that_is_none_ends_the_start(self, default_file: Path) -> None:
        default_file.write_text("nonsense\n")

        with pytest.raises(StartupError, match="no colon separator"):
            configured()

    def test_a_path_is_that_of_the_start_when_it_is_read_again(
        self, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        relative = os.path.relpath(option)
        before = configured(mechanism_option=relative)
        monkeypatch.chdir("/")

        after = configured(mechanism_option=relative)

        assert after == before
