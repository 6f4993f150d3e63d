"""A real slapd of its own: a small directory, ports of 127.0.0.1 and ::1, a unix socket."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.helpers.certificates import Certificate
from tests.helpers.processes import DEADLINE, Server, ServerFailed, free_port, short_directory

SUFFIX = "dc=example,dc=org"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
ADMIN, ADMIN_PASSWORD = f"cn=admin,{SUFFIX}", "of all"
SERVICE, SERVICE_PASSWORD = f"cn=service,{SUFFIX}", "of the service"

# What is so in every directory here; more comes from the tests.
CONFIGURATION = """\
loglevel 0
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
sasl-host localhost
sasl-secprops none
password-hash {{CLEARTEXT}}
authz-regexp "uid=([^,]*),(cn=[^,]*,)?cn=[^,]*,cn=auth" "uid=$1,{people}"
authz-regexp "gidNumber=[0-9]*[+]uidNumber=[0-9]*,cn=peercred,cn=external,cn=auth" "{service}"
{server}
database mdb
suffix "{suffix}"
rootdn "{admin}"
rootpw "{admin_password}"
directory "{directory}/data"
maxsize 10485760
index objectClass,uid,mail,member,uniqueMember eq
{first}
access to attrs=userPassword by dn.exact="{service}" read by anonymous auth by * none
access to dn.subtree="ou=secret,{suffix}" by dn.exact="{service}" read by anonymous auth by * none
access to * by * read
{database}
"""
TREE = f"""\
dn: {SUFFIX}
objectClass: organization
objectClass: dcObject
o: example
dc: example

dn: {SERVICE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: service
userPassword: {SERVICE_PASSWORD}

""" + "".join(
    f"dn: ou={name},{SUFFIX}\nobjectClass: organizationalUnit\nou: {name}\n\n"
    for name in ("people", "groups", "secret")
)


def person(uid: str, password: str, where: str = PEOPLE, **attributes: str) -> str:
    """Return the entry of somebody, in LDIF; texts in *attributes* are its further values."""
    lines = [f"dn: uid={uid},{where}", "objectClass: inetOrgPerson", f"uid: {uid}"]
    lines += [f"cn: {uid}", f"sn: {uid}", f"userPassword: {password}"]
    lines += [f"{name}: {value}" for name, value in attributes.items()]
    return "\n".join(lines) + "\n\n"


def group(cn: str, members: Sequence[str], attribute: str = "member") -> str:
    """Return the entry of a group in LDIF; *members* are the names of entries."""
    kind = {"member": "groupOfNames", "uniqueMember": "groupOfUniqueNames"}[attribute]
    lines = [f"dn: cn={cn},{GROUPS}", f"objectClass: {kind}", f"cn: {cn}"]
    return "\n".join([*lines, *(f"{attribute}: {member}" for member in members)]) + "\n\n"


class Slapd:
    """A directory below *directory*.

    *server* and *database* are lines for its configuration; *first* are rules
    of access that come before those that are always there.
    """

    def __init__(
        self,
        directory: Path,
        certificate: Certificate | None = None,
        server: str = "",
        database: str = "",
        first: str = "",
    ) -> None:
        self.directory = directory
        self.port, self.tls_port = free_port(), free_port()
        self.socket = directory / "ldapi"
        self._configuration = directory / "slapd.conf"
        self._server: Server | None = None
        if certificate is not None:
            server += f"\nTLSCertificateFile {certificate.certificate}"
            server += f"\nTLSCertificateKeyFile {certificate.key}\n"
        self._has_tls = certificate is not None
        text = CONFIGURATION.format(
            people=PEOPLE,
            service=SERVICE,
            suffix=SUFFIX,
            admin=ADMIN,
            admin_password=ADMIN_PASSWORD,
            directory=directory,
            server=server,
            database=database,
            first=first,
        )
        self._configuration.write_text(text)
        (directory / "data").mkdir()

    @property
    def uri(self) -> str:
        """Where it is, without TLS unless that is asked for."""
        return f"ldap://127.0.0.1:{self.port}/"

    @property
    def tls_uri(self) -> str:
        """The same with TLS from the beginning."""
        return f"ldaps://127.0.0.1:{self.tls_port}/"

    @property
    def socket_uri(self) -> str:
        """The same by the unix socket."""
        return f"ldapi://{quote(str(self.socket), safe='')}/"

    def load(self, ldif: str) -> None:
        """Put entries into the directory, while it is not running."""
        _run(["slapadd", "-q", "-f", str(self._configuration)], ldif)

    def start(self) -> None:
        """Start it; return when it answers."""
        plain = [f"ldap://127.0.0.1:{self.port}", f"ldap://[::1]:{self.port}", self.socket_uri]
        tls = [f"ldaps://127.0.0.1:{self.tls_port}", f"ldaps://[::1]:{self.tls_port}"]
        listeners = " ".join([*plain, *(tls if self._has_tls else [])])
        argv = ["slapd", "-f", str(self._configuration), "-h", listeners, "-d", "0"]
        self._server = Server(argv, self.directory / "output")
        self._server.wait_until(self._answers)

    def _answers(self) -> bool:
        argv = ["ldapwhoami", "-x", "-H", self.socket_uri]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=DEADLINE)
        return done.returncode == 0

    def stop(self) -> None:
        """End it, if it runs."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the length of a block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @property
    def pid(self) -> int:
        """The process id."""
        if self._server is None:
            raise ServerFailed("slapd does not run")
        return self._server.pid

    def change(self, ldif: str) -> None:
        """Apply changes in LDIF, as the administrator of all."""
        argv = ["ldapmodify", "-x", "-H", self.socket_uri, "-D", ADMIN, "-w", ADMIN_PASSWORD]
        _run(argv, ldif)

    def add(self, ldif: str) -> None:
        """Add entries, as the administrator of all."""
        argv = ["ldapadd", "-x", "-H", self.socket_uri, "-D", ADMIN, "-w", ADMIN_PASSWORD]
        _run(argv, ldif)

    def set_password(self, dn: str, password: str) -> None:
        """Replace a password."""
        change = "changetype: modify\nreplace: userPassword"
        self.change(f"dn: {dn}\n{change}\nuserPassword: {password}\n")


def _run(argv: list[str], standard_input: str) -> None:
    done = subprocess.run(
        argv, input=standard_input.encode(), capture_output=True, check=False, timeout=DEADLINE
    )
    if done.returncode:
        raise ServerFailed(f"{argv[0]}: {done.stderr.decode(errors='replace')}")


@contextmanager
def slapd(
    entries: str = "",
    certificate: Certificate | None = None,
    server: str = "",
    database: str = "",
    first: str = "",
) -> Iterator[Slapd]:
    """Run a directory with *entries* (LDIF) beside the tree while the block runs."""
    with short_directory("ld-") as directory:
        made = Slapd(directory, certificate, server, database, first)
        made.load(TREE + entries)
        made.start()
        try:
            yield made
        finally:
            made.stop()
