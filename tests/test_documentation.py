"""What is documented is what there is: man pages, the example configuration, links."""

import re
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest

from pysaslauthd.cli.saslauthd import USAGE
from pysaslauthd.cli.smtpd import LONG as SMTPD_LONG
from pysaslauthd.cli.smtpd import USAGE as SMTPD_USAGE
from pysaslauthd.config.cyrus import LONG, SHORT
from pysaslauthd.config.load import load_settings
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Httpform, Kerberos5, Ldap, Rimap
from pysaslauthd.plugins import MECHANISMS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = sorted(PROJECT["scripts"])
PAGES = sorted((ROOT / "docs" / "man").glob("*.8"))
EXAMPLE = ROOT / "conf" / "pysaslauthd.toml"
LINKING = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def page_text(command: str) -> str:
    page = (ROOT / "docs" / "man" / f"{command}.8").read_text()
    return page.replace("\\-", "-")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_man_page(command: str) -> None:
    assert f"{command} - " in re.sub(r"\s+", " ", page_text(command))


@pytest.mark.interop("groff")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_man_page_is_well_formed(page: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", page], capture_output=True, check=True, timeout=20
    )

    assert done.stderr == b""


@pytest.mark.parametrize("letter", sorted(SHORT.replace(":", "")))
def test_every_short_flag_of_the_daemon_is_documented(letter: str) -> None:
    assert re.search(rf"^\.BI? -{letter}\b", page_text("pysaslauthd"), re.MULTILINE)
    assert f"\n  -{letter} " in USAGE


@pytest.mark.parametrize("name", sorted(set(LONG) - {"help", "version"}))
def test_every_long_flag_of_the_daemon_is_documented(name: str) -> None:
    assert f"--{name}" in page_text("pysaslauthd")
    assert f"\n  --{name} " in USAGE


def everything_set() -> str:
    """Return the example with every setting and table in force."""
    return re.sub(r"^#(\w+ = |\[)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def names_of(kind: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind)}


def test_the_example_configuration_names_every_setting() -> None:
    assert set(tomllib.loads(everything_set())) == names_of(Settings)


@pytest.mark.parametrize("table", [Ldap, Rimap, Kerberos5, Httpform])
def test_the_example_configuration_names_every_setting_of_a_backend(
    table: type[msgspec.Struct],
) -> None:
    named = tomllib.loads(everything_set())[table.__name__.lower()]

    assert set(named) == names_of(table)


def test_the_example_configuration_shows_the_defaults() -> None:
    assert load_settings(str(EXAMPLE), {}) == Settings(mechanism="sasldb")


def test_the_example_configuration_is_valid_with_everything_set(tmp_path: Path) -> None:
    everything = tmp_path / "all.toml"
    everything.write_text(everything_set())

    assert load_settings(str(everything), {}).socket_mode == 0o660


@pytest.mark.parametrize(
    ("prefix", "table"), [("ldap_", Ldap), ("httpform_", Httpform), ("krb5_", Kerberos5)]
)
def test_every_key_of_the_c_daemons_files_is_documented(
    prefix: str, table: type[msgspec.Struct]
) -> None:
    elsewhere = {"tls_identity", "instances"}  # not in those files, or under many names
    keys = {f"{prefix}{name}" for name in names_of(table) - elsewhere}

    assert {key for key in keys if key not in page_text("pysaslauthd")} == set()


@pytest.mark.parametrize("page", LINKING, ids=lambda p: p.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_changelog_has_this_version_or_what_comes_next() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_the_example_of_the_c_daemons_file_is_one(tmp_path: Path) -> None:
    example = (ROOT / "conf" / "saslauthd.conf").read_text()
    everything = re.sub(r"^#((?:ldap|krb5|httpform)_\w+: )", r"\1", example, flags=re.MULTILINE)
    file = tmp_path / "saslauthd.conf"
    file.write_text(everything)

    for name in ("ldap", "httpform", "kerberos5"):
        settings = Settings(mechanism=name, mechanism_option=str(file))
        assert getattr(MECHANISMS[name].configure(settings), name) is not None


def test_the_example_of_the_c_daemons_file_has_nothing_that_is_ignored(
    caplog: pytest.LogCaptureFixture, seen_logs: None
) -> None:
    settings = Settings(mechanism="ldap", mechanism_option=str(ROOT / "conf" / "saslauthd.conf"))

    MECHANISMS["ldap"].check(MECHANISMS["ldap"].configure(settings))

    assert caplog.records == []


@pytest.mark.parametrize("name", sorted({f"--{long}" for long in SMTPD_LONG} | set("aOrcnVvh")))
def test_every_flag_of_the_submission_server_is_documented(name: str) -> None:
    flag = name if name.startswith("--") else f"-{name}"

    assert re.search(rf"^\.BI?R? .*{re.escape(flag)}\b", page_text("pysaslsmtpd"), re.MULTILINE)
    assert re.search(rf"^  .*{re.escape(flag)}\b", SMTPD_USAGE, re.MULTILINE)
