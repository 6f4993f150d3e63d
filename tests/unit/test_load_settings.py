import traceback
from pathlib import Path

import pytest

from pysaslauthd.config.load import load_settings
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret

BAD_CONFIGS = sorted((Path(__file__).parent.parent / "bad_configs").glob("*.toml"))


def test_a_file_fills_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mechanism = "sasldb"\npassword_bytes = 4096\nmux = ["/a", "/b"]\n')

    settings = load_settings(str(file), {})

    assert (settings.password_bytes, settings.mux) == (4096, ("/a", "/b"))


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mechanism = "pam"\n')

    assert load_settings(str(file), {"mechanism": "sasldb"}).mechanism == "sasldb"


@pytest.mark.parametrize("file", BAD_CONFIGS, ids=lambda f: f.stem)
def test_a_bad_file_is_refused_by_its_name(file: Path) -> None:
    with pytest.raises(StartupError) as caught:
        load_settings(str(file), {})

    assert str(file) in str(caught.value)


def test_a_missing_file_is_refused_by_its_name() -> None:
    with pytest.raises(StartupError, match="/nonexistent: No such file"):
        load_settings("/nonexistent", {})


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mechanism = "sasldb"\nidle_afer = 3\n')

    with pytest.raises(StartupError, match="idle_afer"):
        load_settings(str(file), {})


def test_a_table_fills_the_settings_of_its_backend(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mechanism = "ldap"\n[ldap]\nservers = ["ldaps://a/"]\ntimeout = 2\n')

    table = load_settings(str(file), {}).ldap

    assert table == Ldap(servers=("ldaps://a/",), timeout=2.0)


def test_a_password_in_a_table_is_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mechanism = "ldap"\n[ldap]\npassword = "pässword"\n')

    settings = load_settings(str(file), {})

    assert settings.ldap is not None
    assert settings.ldap.password == Secret("pässword".encode())
    assert "pässword" not in repr(settings)


def test_a_password_that_is_no_text_is_refused_without_being_shown(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('mechanism = "ldap"\n[ldap]\npassword = 1234567\n')

    with pytest.raises(StartupError, match=r"\$\.ldap\.password") as refused:
        load_settings(str(file), {})

    assert "1234567" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('scope = "x"', id="another-setting"),
        pytest.param('bind_pw = "s3cret"', id="unknown-setting"),
        pytest.param('tls_cert = "s3cret"', id="path"),
        pytest.param('servers = "s3cret"', id="list"),
        pytest.param('tls_identity = ["s3cret"]', id="secret-of-another-type"),
        pytest.param('password = "s3cret"', id="twice"),
        pytest.param('id = s3cret"', id="not-toml"),
    ],
)
def test_no_secret_is_shown_with_a_refusal(tmp_path: Path, line: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'mechanism = "ldap"\n[ldap]\npassword = "s3cret"\n{line}\n')

    with pytest.raises(StartupError) as refused:
        load_settings(str(file), {})

    assert "s3cret" not in "".join(traceback.format_exception(refused.value))
