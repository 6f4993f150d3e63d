"""The words between supervisor and front, with the descriptors that come with some."""

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from pysaslauthd import channel
from pysaslauthd.config.settings import Settings
from pysaslauthd.config.tables import Ldap
from pysaslauthd.errors import StartupError
from pysaslauthd.model import Secret
from tests.helpers.workers import count_descriptors

SETTINGS = Settings(
    mechanism="pam",
    mux=("/run/a\nb}", "/run/ë"),
    service_deadlines={"imap": 3.5},
    cache=True,
    ldap=Ldap(servers=("ldaps://a/", "ldapi:///"), password=Secret(b"\xff\0secret")),
)


def settings_of(size: int) -> Settings:
    """Return settings whose word, as generation 5, has *size* bytes."""
    least = len(channel.encode_reload(Settings(mechanism="pam", mechanism_option=""), 5))
    return Settings(mechanism="pam", mechanism_option="x" * (size - least))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end and the front's."""
    supervisors, fronts = channel.pair()
    with supervisors, fronts:
        yield supervisors, fronts


Ends = tuple[socket.socket, socket.socket]


class TestReceiving:
    def test_each_word_arrives_by_itself(self, ends: Ends) -> None:
        supervisors, fronts = ends
        fronts.send(channel.READY)
        fronts.send(channel.ALIVE)

        assert [channel.receive(supervisors) for _ in range(3)] == [b"ready", b"alive", None]

    def test_where_the_other_side_has_gone_there_is_an_empty_word(self, ends: Ends) -> None:
        supervisors, fronts = ends
        fronts.send(channel.READY)
        fronts.close()

        assert [channel.receive(supervisors) for _ in range(2)] == [b"ready", b""]

    def test_a_side_that_went_without_listening_has_gone_too(self, ends: Ends) -> None:
        supervisors, fronts = ends
        supervisors.send(b"unread")
        fronts.close()

        assert channel.receive(supervisors) == b""

    def test_a_front_cannot_hand_descriptors_to_its_supervisor(self, ends: Ends) -> None:
        supervisors, fronts = ends
        before = count_descriptors()
        for _ in range(5):
            socket.send_fds(fronts, [channel.ALIVE], [0, 1, 2])

        assert channel.receive(supervisors) == channel.ALIVE
        assert count_descriptors() == before

    def test_the_front_gets_a_descriptor_with_a_word(self, ends: Ends) -> None:
        supervisors, fronts = ends
        reader, writer = os.pipe()
        socket.send_fds(supervisors, [channel.grant(3, 7)], [writer])
        os.close(writer)

        text, descriptor = channel.receive_word(fronts) or channel.Word(b"")

        assert (text, channel.receive_word(fronts)) == (b"worker 3 7", None)
        assert descriptor is not None
        os.write(descriptor, b"x")
        assert os.read(reader, 9) == b"x"
        os.close(descriptor)
        os.close(reader)

    def test_a_word_without_one_brings_none(self, ends: Ends) -> None:
        supervisors, fronts = ends
        supervisors.send(channel.STOP)

        assert channel.receive_word(fronts) == (b"stop", None)

    def test_the_front_sees_that_the_supervisor_has_gone(self, ends: Ends) -> None:
        supervisors, fronts = ends
        supervisors.close()

        assert channel.receive_word(fronts) == (b"", None)

    def test_the_front_sees_that_a_supervisor_went_without_listening(self, ends: Ends) -> None:
        supervisors, fronts = ends
        fronts.send(b"unread")
        supervisors.close()

        assert channel.receive_word(fronts) == (b"", None)


class TestWords:
    def test_a_start_names_kind_generation_and_wish(self) -> None:
        said = channel.START.fullmatch(channel.ask_start("verifier", 3, 7))

        assert said is not None
        assert said.groups() == (b"verifier", b"3", b"7")

    def test_a_kill_names_the_worker(self) -> None:
        said = channel.KILL.fullmatch(channel.ask_kill(12))

        assert said is not None
        assert said.groups() == (b"12",)

    def test_a_grant_names_the_wish_and_the_worker(self) -> None:
        said = channel.WORKER.fullmatch(channel.grant(7, 12))

        assert said is not None
        assert said.groups() == (b"7", b"12")

    def test_a_refusal_names_the_wish(self) -> None:
        said = channel.NO_WORKER.fullmatch(channel.refuse(7))

        assert said is not None
        assert said.groups() == (b"7",)

    @pytest.mark.parametrize(
        "word",
        [
            b"",
            b"start",
            b"start  0 0",
            b"start verifier",
            b"start verifier 1",
            b"start verifier -1 1",
            b"start verifier 1 -1",
            b"start verifier 1 1\n",
            b"start VERIFIER 1 1",
            b"start " + b"x" * 17 + b" 1 1",
            b"start verifier 1234567890 1",
            b"start verifier 1 1234567890",
            b"kill",
            b"kill -1",
            b"kill 1\n",
            b"kill 1 2",
            b"kill 1234567890",
            b"worker 1",
            b"worker 1 -1",
            b"none",
            b"none 1 2",
            b"reload 1",
            b"reload 1 []",
        ],
        ids=repr,
    )
    def test_what_is_none_is_no_word(self, word: bytes) -> None:
        words = (
            *(channel.START, channel.KILL),
            *(channel.WORKER, channel.NO_WORKER, channel.RELOAD),
        )

        assert not any(one.fullmatch(word) for one in words)


class TestSettings:
    def test_they_arrive_as_they_are(self) -> None:
        said = channel.RELOAD.fullmatch(channel.encode_reload(SETTINGS, 5))

        assert said is not None
        assert int(said[1]) == 5
        assert channel.decode_settings(said[2]) == SETTINGS

    def test_what_has_no_form_is_refused_at_the_start(self) -> None:
        settings = Settings(mechanism="sasldb", mechanism_option="/tmp/\udcff")

        with pytest.raises(StartupError, match="a setting has a value that cannot be used"):
            channel.encode_reload(settings, 0)

    def test_as_many_as_fit_into_a_packet_arrive_whole(self, ends: Ends) -> None:
        supervisors, fronts = ends
        word = channel.encode_reload(settings_of(channel.LARGEST_PACKET), 5)
        supervisors.send(word)

        received = channel.receive_word(fronts)

        assert received == (word, None)

    def test_more_than_that_are_refused(self) -> None:
        with pytest.raises(StartupError, match="the settings are too long: at most 65536 bytes"):
            channel.encode_reload(settings_of(channel.LARGEST_PACKET + 1), 5)

    def test_what_are_none_are_refused(self) -> None:
        with pytest.raises(msgspec.DecodeError):
            channel.decode_settings(b'{"mechanism": "pam", "typo": 1}')
