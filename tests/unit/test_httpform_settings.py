"""What `-a httpform` is told: where it is looked for, what it may be, and what is refused."""

from pathlib import Path

import pytest

from pysaslauthd.config import httpform
from pysaslauthd.config.httpform import configure
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Httpform
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret

MINIMUM = "httpform_uri: /login\nhttpform_data: u=%u&p=%p\n"
TABLE = Httpform(uri="/table", data="p=%p")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saslauthd.conf"


@pytest.fixture
def default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the default file would be; it is not there yet."""
    path = tmp_path / "default.conf"
    monkeypatch.setattr(httpform, "DEFAULT_FILE", str(path))
    return path


def read(file: Path, *lines: str) -> Httpform:
    """Return what a file with these lines before the minimum says."""
    file.write_text("".join(f"{line}\n" for line in lines) + MINIMUM)
    return configured(file=str(file))


def configured(*, file: str | None = None, table: Httpform | None = None) -> Httpform:
    found = configure(Settings(mechanism="httpform", httpform=table), file).httpform
    assert found is not None
    return found


def refusal(file: Path, *lines: str) -> str:
    with pytest.raises(StartupError) as refused:
        read(file, *lines)
    return refused.value.lines[0]


@pytest.mark.usefixtures("default_file")
class TestWhereItIsLookedFor:
    def test_the_file_of_the_option_counts_before_the_table(self, file: Path) -> None:
        file.write_text(MINIMUM)

        assert configured(file=str(file), table=TABLE).uri == "/login"

    def test_nothing_of_the_table_counts_then(self, file: Path) -> None:
        file.write_text(MINIMUM)
        table = Httpform(uri="/table", data="p=%p", tls=True)

        assert configured(file=str(file), table=table).tls is False

    def test_the_table_counts_before_the_default_file(self, default_file: Path) -> None:
        default_file.write_text(MINIMUM)

        assert configured(table=TABLE) == TABLE

    def test_the_default_file_counts_where_there_is_nothing_else(self, default_file: Path) -> None:
        default_file.write_text(MINIMUM)

        assert configured() == Httpform(uri="/login", data="u=%u&p=%p")

    def test_the_default_file_need_not_be_there(self) -> None:
        with pytest.raises(StartupError, match=r"^auth_httpform_init formdata and uri must be"):
            configured()

    def test_the_file_of_the_option_must_be_there(self) -> None:
        with pytest.raises(StartupError, match=r"^auth_httpform_init cannot open /nonexistent: No"):
            configured(file="/nonexistent")

    def test_other_settings_stay(self, file: Path) -> None:
        file.write_text(MINIMUM)
        settings = Settings(mechanism="httpform", deadline=3.0)

        assert configure(settings, str(file)).deadline == 3.0


class TestTheFile:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("httpform_host: www.example.org", {"host": "www.example.org"}),
            ("httpform_host: ::1", {"host": "::1"}),
            ("httpform_port: 8080", {"port": 8080}),
            ("httpform_port: https", {"port": 443}),
            ("httpform_uri: /a/../b?c=%64&e#", {"uri": "/a/../b?c=%64&e#"}),
            ("httpform_data: a = %u ", {"data": "a = %u "}),
            ("httpform_tls: yes", {"tls": True}),
            ("httpform_tls: off", {"tls": False}),
            ("httpform_tls_cacert_file: /ca.pem", {"tls_cacert_file": "/ca.pem"}),
            ("httpform_tls_cacert_dir: /ca", {"tls_cacert_dir": "/ca"}),
            ("httpform_tls_check_peer: no", {"tls_check_peer": False}),
            ("httpform_tls_minimum: 1.3", {"tls_minimum": "1.3"}),
            ("httpform_tls_ciphers: HIGH", {"tls_ciphers": "HIGH"}),
            ("httpform_timeout: 2.5", {"timeout": 2.5}),
            ("httpform_connections: 7", {"connections": 7}),
            ("HTTPFORM_HOST: a", {"host": "a"}),
        ],
    )
    def test_a_line_sets_what_it_names(
        self, file: Path, line: str, expected: dict[str, object]
    ) -> None:
        defaults = {"uri": "/login", "data": "u=%u&p=%p"}

        assert read(file, line) == Httpform(**{**defaults, **expected})  # type: ignore[arg-type]  # of several types

    def test_the_first_of_several_counts(self, file: Path) -> None:
        assert read(file, "httpform_host: a", "httpform_host: b").host == "a"

    def test_a_second_one_must_be_right_too(self, file: Path) -> None:
        assert "httpform_port" in refusal(file, "httpform_port: 80", "httpform_port: x y")

    def test_certificate_and_key_are_read(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "cert").write_text("CERT")
        (tmp_path / "key").write_text("KEY")

        table = read(
            file,
            f"httpform_tls_cert: {tmp_path / 'cert'}",
            f"httpform_tls_key: {tmp_path / 'key'}",
        )

        assert table.tls_identity == Secret(b"CERT\nKEY\n")

    def test_a_switch_that_is_neither_on_nor_off_is_told(self, file: Path) -> None:
        problem = refusal(file, "httpform_tls: ja")

        assert problem == f"{file}: line 1: httpform_tls: neither yes nor no: 'ja'"

    @pytest.mark.usefixtures("seen_logs")
    def test_an_unknown_key_is_told_with_its_line(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        read(file, "# a comment", "httpform_prot: 80")

        assert caplog.messages == [f"{file}: line 2: unknown key httpform_prot"]

    @pytest.mark.usefixtures("seen_logs")
    def test_keys_of_others_are_not_unknown(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        read(file, "ldap_servers: ldap://a/", "krb5_keytab: /k", "anything: else")

        assert caplog.messages == []

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("httpform_uri /login", "line 1: no colon separator"),
            ("httpform_uri:", "line 1: keyword httpform_uri: no value"),
        ],
    )
    def test_what_is_no_line_is_refused_in_the_c_daemons_words(
        self, file: Path, line: str, problem: str
    ) -> None:
        assert refusal(file, line) == f"auth_httpform_init {file}: {problem}"

    @pytest.mark.parametrize(
        "line",
        [
            "httpform_port: 0",
            "httpform_port: 65536",
            "httpform_port: -1",
            "httpform_port: ٨٠",
            "httpform_port: no-such-service",
            "httpform_tls: Yes",
            "httpform_tls: maybe",
            "httpform_tls_check_peer: No",
            "httpform_tls_minimum: 1.1",
            "httpform_tls_cacert_file: ca.pem",
            "httpform_timeout: 0",
            "httpform_timeout: soon",
            "httpform_connections: 0",
            "httpform_connections: 1.5",
        ],
    )
    def test_a_value_that_cannot_be_is_refused_with_its_place(self, file: Path, line: str) -> None:
        assert refusal(file, line).startswith(f"{file}: line 1: {line.split(':')[0]}: ")

    def test_text_that_is_not_utf8_is_refused(self, file: Path) -> None:
        file.write_bytes(b"httpform_uri: /\xe4\nhttpform_data: x\n")

        with pytest.raises(StartupError, match="httpform_uri is not UTF-8"):
            configured(file=str(file))


class TestWhatEveryTableNeeds:
    @pytest.mark.parametrize(
        "table", [Httpform(), Httpform(uri="/login"), Httpform(data="x")], ids=repr
    )
    def test_uri_and_data_must_be_there(self, table: Httpform) -> None:
        with pytest.raises(StartupError) as refused:
            configured(table=table)

        assert refused.value.lines[0] == "auth_httpform_init formdata and uri must be specified"
        assert "[httpform]" in refused.value.lines[1]

    @pytest.mark.parametrize(
        "host", ["localhost", "a-b.example.org", "a_b", "192.0.2.1", "fe80::1"]
    )
    def test_a_host_is_a_name_or_an_address(self, host: str) -> None:
        assert configured(table=Httpform(uri="/", data="x", host=host)).host == host

    @pytest.mark.parametrize(
        "host",
        [
            "",
            "a b",
            "a\n",
            "me@host",
            "host:80",
            "[::1]",
            "http://host",
            "host/",
            "ä",
            "fe80::1%lo",
        ],
    )
    def test_anything_else_is_refused(self, host: str) -> None:
        with pytest.raises(StartupError, match="httpform: host is no name"):
            configured(table=Httpform(uri="/", data="x", host=host))

    @pytest.mark.parametrize(
        "uri",
        [
            "login",
            "http://host/login",
            "*",
            "/a b",
            "/a\t",
            "/a\r",
            "/a\r\nX: y",
            "/a\x7f",
            "/a\u00a0",
        ],
    )
    def test_a_uri_that_is_no_path_is_refused(self, uri: str) -> None:
        with pytest.raises(StartupError, match="httpform: uri must begin with /"):
            configured(table=Httpform(uri=uri, data="x"))
