import pytest

from pysaslauthd.cli.common import Options, UsageError
from pysaslauthd.config.cyrus import LONG, SHORT, Flags, RepeatedMechanism
from pysaslauthd.config.load import load_settings
from pysaslauthd.config.settings import Settings
from pysaslauthd.errors import StartupError


def settings_for(*words: str) -> Settings:
    flags = Flags()
    for flag, value in Options(words, SHORT, LONG):
        flags.apply(flag, value)
    return load_settings(flags.config, flags.values)


def problem_with(*words: str) -> str:
    with pytest.raises(StartupError) as caught:
        settings_for("-a", "sasldb", *words)
    return caught.value.lines[0]


def test_the_defaults_are_the_c_daemons() -> None:
    settings = settings_for("-a", "sasldb")

    assert settings.run_directory == "/var/run/saslauthd"
    assert settings.cache_seconds == 28800
    assert not settings.cache
    assert not settings.foreground
    assert not settings.verbose
    assert not settings.combine_realm


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["-O", "/etc/sasldb2"], "mechanism_option", "/etc/sasldb2"),
        (["-O", "a", "-O", "b"], "mechanism_option", "b"),
        (["-m", "/run/x"], "run_directory", "/run/x"),
        (["-m/run/x"], "run_directory", "/run/x"),
        (["-n", "7"], "processes", 7),
        (["-n7"], "processes", 7),
        (["-n", "0"], "processes", 0),
        (["-n", "many"], "processes", 0),
        (["-n", " +3x"], "processes", 3),
        (["-r"], "combine_realm", True),
        (["-f"], "foreground", True),
        (["-d"], "foreground", True),
        (["-d"], "verbose", True),
        (["-V"], "verbose", True),
        (["-cdr"], "combine_realm", True),
        (["-cl"], "cache", True),
        (["-s", "8"], "cache_kilobytes", 8),
        (["-t", "60"], "cache_seconds", 60.0),
        (["--user", "mail"], "user", "mail"),
        (["--mux", "/a", "--mux=/b"], "mux", ("/a", "/b")),
        (["--dovecot", "/a", "--dovecot=inet:[::1]:1"], "dovecot", ("/a", "inet:[::1]:1")),
        (["--allow-cleartext=a", "--allow-cleartext", "::1"], "allow_cleartext", ("a", "::1")),
        (["--socket-mode", "660"], "socket_mode", 0o660),
        (["--socket-mode", "0777"], "socket_mode", 0o777),
        (["--socket-group", "sasl"], "socket_group", "sasl"),
        (["--socket-owner", "postfix"], "socket_owner", "postfix"),
        (["--on-outage", "no"], "on_outage", "no"),
        (["--local-domain", "example.org"], "local_domain", "example.org"),
    ],
    ids=str,
)
def test_a_flag_is_a_setting(words: list[str], name: str, value: object) -> None:
    assert getattr(settings_for("-a", "sasldb", *words), name) == value


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-m", "run"], "-m requires an absolute pathname"),
        (["-n", "-1"], "invalid number of worker processes defined"),
        (["-s", "0"], "cache size must be positive and non zero"),
        (["-s", "x"], "cache size must be positive and non zero"),
        (["-s", "-5"], "cache size must be positive and non zero"),
        (["-t", "0"], "cache timeout must be positive"),
        (["-t", "-5"], "cache timeout must be positive"),
        (["--mux", "mux"], "--mux requires an absolute pathname"),
        (["--dovecot", "auth"], "--dovecot requires an absolute pathname, or inet:ADDRESS:PORT"),
        (["--socket-mode", "rw"], "--socket-mode takes three octal digits such as 660, not 'rw'"),
        (["--on-outage", "x"], "--on-outage takes tempfail or no, not 'x'"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_with_its_text(words: list[str], problem: str) -> None:
    assert problem_with(*words) == problem


def test_a_second_mechanism_is_an_event_of_its_own() -> None:
    with pytest.raises(RepeatedMechanism):
        settings_for("-a", "sasldb", "-a", "sasldb")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-x"], "invalid option -- 'x'"),
        (["-:"], "invalid option -- ':'"),
        (["-a"], "option requires an argument -- 'a'"),
        (["-T"], "invalid option -- 'T'"),
        (["--nope"], "unrecognized option '--nope'"),
        (["--help=x"], "option '--help' doesn't allow an argument"),
        (["--mux"], "option '--mux' requires an argument"),
    ],
    ids=str,
)
def test_a_wrong_line_is_described_as_by_getopt(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(Options(words, SHORT, LONG))

    assert str(caught.value) == text


def test_operands_may_stand_anywhere() -> None:
    options = Options(["one", "-V", "-", "--", "-x"], SHORT, LONG)

    assert list(options) == [("-V", "")]
    assert options.operands == ["one", "-", "-x"]


def test_an_option_is_acted_on_before_the_rest_is_read() -> None:
    options = iter(Options(["-v", "-x"], SHORT, LONG))

    assert next(options) == ("-v", "")
