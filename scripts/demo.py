"""What scripts/demo runs: a private database and daemon, two checks, and what to tell Postfix."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

USER, REALM, PASSWORD = "tux", "example.org", "penguin"
START_SECONDS = 10.0
TOOLS = Path(sys.executable).parent


def show(*argv: str | Path, password: str | None = None) -> int:
    """Run a command where the reader can see it; return its exit code."""
    print(f"\n$ {' '.join(map(str, argv))}", flush=True)
    command = [TOOLS / argv[0], *argv[1:]]
    done = subprocess.run(command, input=password, text=True, capture_output=True, check=False)
    print(done.stdout, done.stderr, sep="", end="", flush=True)
    return done.returncode


def home() -> Path:
    """Return `.demo`, or another directory where its sockets' paths would not fit.

    So it is for root too, whose daemon reads the database as another user, who
    may not get into this folder.
    """
    place = Path(".demo").resolve()
    if os.geteuid() == 0 or len(os.fsencode(place)) + len("/run/mux") > 107:
        place = Path(tempfile.mkdtemp(prefix="pysaslauthd-"))
        place.chmod(0o755)
        print(f"Using {place}")
    (place / "run").mkdir(mode=0o755, parents=True, exist_ok=True)
    return place


def start(database: Path, run: Path) -> subprocess.Popen[bytes]:
    """Start the daemon in the foreground; return when its socket is there, exit if it ends."""
    argv = ["pysaslauthd", "-a", "sasldb", "-O", str(database), "-m", str(run), "-f"]
    print(f"\n$ {' '.join(argv)} &", flush=True)
    daemon = subprocess.Popen([TOOLS / argv[0], *argv[1:]])
    deadline = time.monotonic() + START_SECONDS
    while not (run / "mux").is_socket():
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            sys.exit("the daemon did not start: see above")
        time.sleep(0.02)
    return daemon


def check(run: Path) -> bool:
    """Ask for a right and a wrong password; say whether the answers were right."""
    ask = ("pytestsaslauthd", "-f", run / "mux", "-u", USER, "-r", REALM, "-p")
    print("\nThe right password:")
    right = show(*ask, PASSWORD)
    print("\nA wrong one:")
    wrong = show(*ask, "walrus")
    return right == 0 and wrong != 0


def explain(run: Path) -> None:
    """Print what would connect a Postfix to this daemon."""
    print(f"""
To let a Postfix use it, in /etc/postfix/main.cf:

    smtpd_sasl_auth_enable = yes
    smtpd_sasl_type = cyrus
    smtpd_sasl_path = smtpd
    smtpd_sasl_security_options = noanonymous
    smtpd_recipient_restrictions = permit_sasl_authenticated, reject_unauth_destination

in /etc/postfix/sasl/smtpd.conf (Fedora: /etc/sasl2/smtpd.conf):

    pwcheck_method: saslauthd
    mech_list: PLAIN LOGIN
    saslauthd_path: {run}/mux

in /etc/postfix/master.cf a smtpd that is not chrooted ("n" in the fifth column), and
leave to reach the socket:

    sudo chgrp postfix {run}/mux

Users then log in as {USER}@{REALM} with the password {PASSWORD}. For a daemon that
stays, see "Install" in README.md.
""")


def main() -> int:
    """Return 0 if both answers were right."""
    place = home()
    print(f"\nAdding the user {USER}@{REALM} to {place}/sasldb2:")
    add = ("pysaslpasswd", "-c", "-p", "-f", place / "sasldb2", "-u", REALM, USER)
    if show(*add, password=PASSWORD) != 0:
        return 1
    if os.geteuid() == 0:
        # The daemon reads it as another user; where there is a group sasl, 0640 root:sasl will do.
        (place / "sasldb2").chmod(0o644)
    daemon = start(place / "sasldb2", place / "run")
    signal.signal(signal.SIGTERM, lambda *_: daemon.terminate())
    try:
        good = check(place / "run")
        explain(place / "run")
        if "--once" not in sys.argv and good:
            print("Serving. Ctrl-C ends it.", flush=True)
            daemon.wait()
    except KeyboardInterrupt:
        print()
    finally:
        daemon.terminate()
        daemon.wait()
        if place.name != ".demo":
            shutil.rmtree(place)
    print("The answers were right." if good else "The answers were WRONG.")
    return 0 if good else 1


sys.exit(main())
