from pathlib import Path

import pytest

from pysaslauthd.config.load import load_settings
from pysaslauthd.errors import StartupError

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
