import os
import socket

from pysaslauthd.server.peers import asking_process, described


def test_the_process_that_asks_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert asking_process(ours) == os.getpid()


def test_a_connection_that_is_gone_was_opened_by_nobody_known() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()

    assert asking_process(ours) == 0


def test_a_process_is_described_by_its_user_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert described(ours) == f"process {os.getpid()} of user {os.getuid()}"


def test_a_client_in_the_network_is_described_by_its_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        ours, _ = listener.accept()
        with ours:
            assert described(ours) == "127.0.0.1"


def test_one_that_has_gone_is_described_nevertheless() -> None:
    with socket.socket(socket.AF_INET) as never_connected:
        assert described(never_connected) == "an address that cannot be told any more"
