import pytest

from pysaslauthd.sasl.server.mechanism import Traits
from pysaslauthd.smtp.options import Policy, SecurityOptions, UnknownOption

TRAITS = {
    "PLAIN": Traits(plaintext=True),
    "CRAM-MD5": Traits(dictionary=True, active=True),
    "DIGEST-MD5": Traits(dictionary=True, active=True, mutual_auth=True),
    "SCRAM-SHA-256": Traits(mutual_auth=True),
    "ANONYMOUS": Traits(anonymous=True),
    "EXTERNAL": Traits(),
}
ALL = set(TRAITS)


def left(text: str) -> set[str]:
    options = SecurityOptions.parse(text)
    return {name for name, traits in TRAITS.items() if options.allows(traits)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("", ALL, id="none"),
        pytest.param("noanonymous", ALL - {"ANONYMOUS"}, id="noanonymous"),
        pytest.param("noplaintext", ALL - {"PLAIN"}, id="noplaintext"),
        pytest.param("noplain", ALL - {"PLAIN"}, id="noplain"),
        pytest.param("noactive", ALL - {"CRAM-MD5", "DIGEST-MD5"}, id="noactive-keeps-plain"),
        pytest.param("nodictionary", ALL - {"CRAM-MD5", "DIGEST-MD5"}, id="nodictionary"),
        pytest.param("mutual_auth", {"DIGEST-MD5", "SCRAM-SHA-256"}, id="mutual-auth"),
        pytest.param("forward_secrecy", set(), id="forward-secrecy"),
        pytest.param("noactive, mutual_auth", {"SCRAM-SHA-256"}, id="both"),
    ],
)
def test_a_word_leaves_the_mechanisms_that_it_leaves_with_dovecot(
    text: str, names: set[str]
) -> None:
    assert left(text) == names


@pytest.mark.parametrize(
    "text", ["noanonymous,noplaintext", " NoAnonymous\tNOPLAINTEXT ", "noplaintext ,, noanonymous"]
)
def test_words_are_separated_as_in_postfix_and_have_no_case(text: str) -> None:
    assert SecurityOptions.parse(text) == SecurityOptions.parse("noanonymous noplaintext")


@pytest.mark.parametrize("text", ["noanonymos", "noanonymous;noplaintext", "noanonymous yes"])
def test_an_unknown_word_is_an_error_that_lists_the_known(text: str) -> None:
    with pytest.raises(
        UnknownOption,
        match="known are noanonymous, noplaintext, noactive, nodictionary, mutual_auth, forward_s",
    ):
        SecurityOptions.parse(text)


def test_another_name_of_a_word_is_taken_with_a_warning() -> None:
    options = SecurityOptions.parse("noplain, noanonymous noplain")

    assert options.warnings == (
        "security option noplain: taken for noplaintext, which is its name",
    )


def test_before_and_after_tls_differ() -> None:
    policy = Policy(SecurityOptions.parse("noplaintext"), SecurityOptions.parse(""))

    assert not policy.allows(TRAITS["PLAIN"], secured=False)
    assert policy.allows(TRAITS["PLAIN"], secured=True)


def test_what_needs_tls_is_not_allowed_before() -> None:
    policy = Policy(only_with_tls=True)

    assert not policy.allows(TRAITS["SCRAM-SHA-256"], secured=False)
    assert policy.allows(TRAITS["SCRAM-SHA-256"], secured=True)
