"""Which principal a request is about."""

import pytest

from pysaslauthd.backends.kerberos5.principals import NameRules, NoPrincipal, principal_name
from tests.contract.verifier import request_for

PLAIN = NameRules()
DOTS = NameRules(conv_krb4_instance=True)
UPPER = NameRules(uppercase_realm=True)
MAIL = NameRules(instances={"imap": "mail"})  # imap is what request_for asks for
OTHERS = NameRules(instances={"smtp": "mail", "IMAP": "mail"})


@pytest.mark.parametrize(
    ("rules", "user", "realm", "name"),
    [
        pytest.param(PLAIN, "joe", "", b"joe", id="of-the-default-realm"),
        pytest.param(PLAIN, "joe", "r", b"joe@r", id="of-a-realm"),
        pytest.param(PLAIN, "joe@r", "", b"joe@r", id="with-its-realm"),
        pytest.param(PLAIN, "joe/mail", "r", b"joe/mail@r", id="with-an-instance"),
        pytest.param(PLAIN, "joe.mail", "r", b"joe.mail@r", id="a-dot"),
        pytest.param(PLAIN, "zoë", "r", "zoë@r".encode(), id="utf8"),
        pytest.param(PLAIN, "joe@r", "r", b"joe@r@r", id="two-realms-for-libkrb5-to-refuse"),
        pytest.param(PLAIN, "j\\oe", "r\\", b"j\\\\oe@r\\\\", id="backslashes"),
        pytest.param(PLAIN, "j" * 2047, "", b"j" * 2047, id="as-long-as-may-be"),
        pytest.param(DOTS, "joe.mail.x", "r.s", b"joe/mail.x@r.s", id="first-dot"),
        pytest.param(DOTS, "joe@r.s", "", b"joe@r.s", id="dot-of-the-realm"),
        pytest.param(UPPER, "joe", "r.é", "joe@R.é".encode(), id="upper-case-as-in-c"),
        pytest.param(UPPER, "joe@r", "", b"joe@R", id="upper-case-of-its-own-realm"),
        pytest.param(UPPER, "joe", "", b"joe", id="no-realm-to-change"),
        pytest.param(MAIL, "joe", "r", b"joe/mail@r", id="forced-instance"),
        pytest.param(MAIL, "joe@r", "", b"joe/mail@r", id="forced-instance-before-its-realm"),
        pytest.param(MAIL, "joe/mail", "r", b"joe/mail@r", id="forced-instance-that-is-there"),
        pytest.param(OTHERS, "joe/any", "r", b"joe/any@r", id="forced-for-other-services"),
    ],
)
def test_a_login_names_a_principal(rules: NameRules, user: str, realm: str, name: bytes) -> None:
    assert principal_name(request_for(user, b"pw", realm), rules) == name


@pytest.mark.parametrize(
    ("rules", "user", "realm"),
    [
        pytest.param(MAIL, "joe/admin", "r", id="another-instance-than-the-forced-one"),
        pytest.param(MAIL, "joe/mail/x", "r", id="more-than-the-forced-one"),
        pytest.param(MAIL, "joe/", "r", id="an-empty-one"),
        pytest.param(MAIL._replace(conv_krb4_instance=True), "joe.admin", "r", id="by-a-dot"),
        pytest.param(PLAIN, "joe@", "", id="an-empty-realm"),
        pytest.param(PLAIN, "joe@", "r", id="an-empty-realm-and-one"),
        pytest.param(PLAIN, "j" * 2048, "", id="too-long"),
        pytest.param(PLAIN, "joe", "r" * 2044, id="too-long-with-its-realm"),
        pytest.param(PLAIN, "joe\0x", "r", id="nul"),
        pytest.param(PLAIN, "joe", "r\0x", id="nul-in-the-realm"),
    ],
)
def test_a_login_that_is_nobodys_is_refused(rules: NameRules, user: str, realm: str) -> None:
    with pytest.raises(NoPrincipal):
        principal_name(request_for(user, b"pw", realm), rules)
