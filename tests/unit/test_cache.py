import gc
import hashlib
import hmac

import pytest

from pysaslauthd.engine.cache import Cache, keyed_hmac, slots_of
from pysaslauthd.model import AuthRequest, Origin, Reason, Secret

OTHER_REASONS = [reason for reason in Reason if reason is not Reason.WRONG_PASSWORD]
# The interpreter keeps both as the same bytes (where the low byte comes first), so that
# their hashes are equal, whatever the key.
ALIKE, UNLIKE = "smtp", "\u6d73\u7074"


def question(
    user: str = "ann",
    password: bytes = b"good",
    realm: str = "example.org",
    service: str = "smtp",
    at: float = 100.0,
) -> AuthRequest:
    return AuthRequest(user, Secret(password), realm, Origin(service), at)


@pytest.fixture
def cache() -> Cache:
    return Cache(None, 10.0)


def table(cache: Cache) -> bytes:
    (found,) = [part for part in gc.get_referents(cache) if isinstance(part, bytearray)]
    return bytes(found)


def buckets_in_use(cache: Cache) -> list[bytes]:
    memory = table(cache)
    buckets = [memory[start : start + 56] for start in range(0, len(memory), 56)]
    return [bucket for bucket in buckets if any(bucket)]


def only_bucket(cache: Cache) -> bytes:
    (bucket,) = buckets_in_use(cache)
    return bucket


def fingerprints(secret: bytes) -> list[bytes]:
    digests = [hashlib.new(name, secret).digest() for name in ("md5", "sha1", "sha256")]
    return [secret, *digests, *(digest.hex().encode() for digest in digests)]


def test_it_holds_what_was_accepted(cache: Cache) -> None:
    cache.accepted(question())

    assert cache.holds(question())


def test_it_holds_nothing_at_first(cache: Cache) -> None:
    assert not cache.holds(question())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(question(password=b"bad"), id="password"),
        pytest.param(question(password=b""), id="no-password"),
        pytest.param(question(password=b"good "), id="longer-password"),
        pytest.param(question(user="Ann"), id="user"),
        pytest.param(question(realm="example.net"), id="realm"),
        pytest.param(question(realm=""), id="no-realm"),
        pytest.param(question(service="imap"), id="service"),
        pytest.param(question(service=""), id="no-service"),
        pytest.param(question(user="annexample.org", realm=""), id="joined"),
        pytest.param(question(user="ann@example.org", realm=""), id="joined-by-at"),
    ],
)
def test_it_does_not_take_one_question_for_another(cache: Cache, other: AuthRequest) -> None:
    cache.accepted(question())

    assert not cache.holds(other)


def test_the_end_of_a_realm_is_not_the_start_of_a_password(cache: Cache) -> None:
    cache.accepted(question(realm="org", password=b"good"))

    assert not cache.holds(question(realm="orgg", password=b"ood"))


def test_services_whose_hashes_are_equal_are_two_services(cache: Cache) -> None:
    cache.accepted(question(service=UNLIKE))

    assert not cache.holds(question(service=ALIKE))


def test_a_user_whose_name_has_an_equal_hash_is_another_user(cache: Cache) -> None:
    cache.accepted(question(user=ALIKE))

    cache.refused(question(user=UNLIKE), Reason.NO_SUCH_USER)

    assert cache.holds(question(user=ALIKE))


def test_the_client_address_makes_no_difference(cache: Cache) -> None:
    cache.accepted(question())

    assert cache.holds(question()._replace(origin=Origin("smtp", "192.0.2.1")))


def test_names_may_be_long(cache: Cache) -> None:
    long = question(user="u" * 1024, realm="r" * 1024, service="s" * 1024)

    cache.accepted(long)

    assert cache.holds(long)


def test_a_name_that_differs_at_its_end_is_another(cache: Cache) -> None:
    cache.accepted(question(user="u" * 1024))

    assert not cache.holds(question(user="u" * 1023 + "v"))


def test_names_need_not_be_ascii(cache: Cache) -> None:
    cache.accepted(question(user="älva", realm="例え", password=b"\xff\xfe"))

    assert cache.holds(question(user="älva", realm="例え", password=b"\xff\xfe"))


def test_an_answer_is_held_until_its_time_is_over(cache: Cache) -> None:
    cache.accepted(question(at=100.0))

    assert cache.holds(question(at=109.999))


def test_an_answer_is_not_held_when_its_time_is_over(cache: Cache) -> None:
    cache.accepted(question(at=100.0))

    assert not cache.holds(question(at=110.0))


def test_a_hit_prolongs_nothing(cache: Cache) -> None:
    cache.accepted(question(at=100.0))

    cache.holds(question(at=109.0))

    assert not cache.holds(question(at=110.0))


def test_a_new_answer_starts_a_new_time(cache: Cache) -> None:
    cache.accepted(question(at=100.0))

    cache.accepted(question(at=110.0))

    assert cache.holds(question(at=119.0))


def test_a_machine_that_has_just_started_holds_nothing(cache: Cache) -> None:
    assert not cache.holds(question(at=0.0))


def test_one_user_may_have_answers_for_several_services(cache: Cache) -> None:
    cache.accepted(question(service="smtp"))

    cache.accepted(question(service="imap"))

    assert cache.holds(question(service="smtp"))
    assert cache.holds(question(service="imap"))


@pytest.mark.parametrize("service", ["smtp", "imap"])
def test_a_new_good_password_removes_the_old_one_for_all_services(
    cache: Cache, service: str
) -> None:
    cache.accepted(question(password=b"old", service="smtp"))
    cache.accepted(question(password=b"old", service="imap"))

    cache.accepted(question(password=b"new", service="smtp"))

    assert not cache.holds(question(password=b"old", service=service))


def test_a_new_good_password_is_not_good_for_services_not_asked(cache: Cache) -> None:
    cache.accepted(question(password=b"old", service="imap"))

    cache.accepted(question(password=b"new", service="smtp"))

    assert not cache.holds(question(password=b"new", service="imap"))


def test_a_new_password_of_one_realm_leaves_the_same_name_in_another(cache: Cache) -> None:
    cache.accepted(question(realm="example.net"))

    cache.accepted(question(password=b"new"))

    assert cache.holds(question(realm="example.net"))


def test_a_wrong_password_removes_nothing(cache: Cache) -> None:
    cache.accepted(question())

    cache.refused(question(password=b"bad"), Reason.WRONG_PASSWORD)

    assert cache.holds(question())


@pytest.mark.parametrize("service", ["smtp", "imap", "ftp"])
def test_a_password_that_was_good_and_is_no_more_empties_all_services(
    cache: Cache, service: str
) -> None:
    cache.accepted(question(service="smtp"))
    cache.accepted(question(service="imap"))

    cache.refused(question(service=service), Reason.WRONG_PASSWORD)

    assert not cache.holds(question(service="smtp"))
    assert not cache.holds(question(service="imap"))


@pytest.mark.parametrize("reason", OTHER_REASONS)
def test_any_other_reason_empties_all_services(cache: Cache, reason: Reason) -> None:
    cache.accepted(question(service="smtp"))
    cache.accepted(question(service="imap"))

    cache.refused(question(password=b"bad", service="ftp"), reason)

    assert not cache.holds(question(service="smtp"))
    assert not cache.holds(question(service="imap"))


def test_a_refusal_is_not_remembered(cache: Cache) -> None:
    cache.refused(question(), Reason.DENIED)
    cache.accepted(question())

    assert cache.holds(question())


def test_a_refusal_leaves_other_users_alone() -> None:
    crowded = Cache(1, 10.0)
    users = ["bob", "cid", "dan", "eve"]
    for user in ["ann", *users]:
        crowded.accepted(question(user))

    crowded.refused(question("ann"), Reason.NO_SUCH_USER)

    assert all(crowded.holds(question(user)) for user in users)


def test_the_oldest_answer_makes_place_in_a_full_slot(cache: Cache) -> None:
    for number in range(7):
        cache.accepted(question(service=f"service{number}", at=100.0 + number))

    held = [cache.holds(question(service=f"service{number}", at=107.0)) for number in range(7)]

    assert held == [False] + 6 * [True]


def test_an_answer_that_is_given_again_is_not_the_oldest(cache: Cache) -> None:
    for number in range(6):
        cache.accepted(question(service=f"service{number}", at=100.0 + number))
    cache.accepted(question(service="service0", at=106.0))

    cache.accepted(question(service="service6", at=107.0))

    held = [cache.holds(question(service=f"service{number}", at=107.0)) for number in range(7)]
    assert held == [True, False] + 5 * [True]


def test_an_answer_that_is_given_again_takes_no_second_place(cache: Cache) -> None:
    for number in range(5):
        cache.accepted(question(service=f"service{number}"))

    for _ in range(6):
        cache.accepted(question(service="again"))

    assert all(cache.holds(question(service=f"service{number}")) for number in range(5))


def test_it_holds_no_more_answers_than_it_has_buckets() -> None:
    small = Cache(1, 10.0)
    users = [f"user{number}" for number in range(100)]

    for user in users:
        small.accepted(question(user))

    assert sum(small.holds(question(user)) for user in users) <= 3 * 6


def test_a_last_user_is_always_held() -> None:
    small = Cache(1, 10.0)

    for number in range(100):
        small.accepted(question(f"user{number}"))

    assert small.holds(question("user99"))


# What the C daemon 2.1.28 logs with -V and -s.
@pytest.mark.parametrize(
    ("kilobytes", "slots"),
    [(1, 3), (2, 5), (3, 7), (8, 17), (100, 179), (1000, 1783), (4096, 7283)],
)
def test_it_has_as_many_slots_as_the_c_daemon(kilobytes: int, slots: int) -> None:
    assert slots_of(kilobytes) == slots


@pytest.mark.parametrize(("kilobytes", "slots"), [(None, 1711), (1, 3), (100, 179)])
def test_a_slot_has_336_bytes(kilobytes: int | None, slots: int) -> None:
    assert len(table(Cache(kilobytes, 10.0))) == slots * 336


def test_its_size_never_changes() -> None:
    small = Cache(1, 10.0)
    before = len(table(small))

    for number in range(50):
        small.accepted(question(f"user{number}"))
        small.refused(question(f"user{number // 2}"), Reason.DENIED)

    assert len(table(small)) == before


def test_what_is_forgotten_is_wiped(cache: Cache) -> None:
    cache.accepted(question())
    digest = max(table(cache).split(bytes(16)), key=len)[-32:]

    cache.refused(question(), Reason.WRONG_PASSWORD)

    assert digest not in table(cache)


def test_a_yes_that_comes_after_a_refusal_of_a_later_question_is_forgotten(cache: Cache) -> None:
    cache.accepted(question(at=90.0))
    cache.refused(question(at=105.0), Reason.WRONG_PASSWORD)

    cache.accepted(question(at=100.0))

    assert not cache.holds(question(at=105.0))


def test_a_yes_that_comes_after_that_to_a_newer_password_is_forgotten(cache: Cache) -> None:
    cache.accepted(question(password=b"new", at=105.0))

    cache.accepted(question(password=b"old", at=100.0))

    assert cache.holds(question(password=b"new", at=105.0))
    assert not cache.holds(question(password=b"old", at=105.0))


def test_a_yes_to_a_later_question_than_the_refused_one_counts(cache: Cache) -> None:
    cache.accepted(question(at=90.0))
    cache.refused(question(at=100.0), Reason.DENIED)

    cache.accepted(question(at=101.0))

    assert cache.holds(question(at=102.0))


def test_refusals_of_users_it_does_not_know_take_no_room(cache: Cache) -> None:
    empty = table(cache)

    cache.refused(question(), Reason.NO_SUCH_USER)

    assert table(cache) == empty


def test_its_memory_shows_neither_names_nor_passwords(cache: Cache) -> None:
    telling = [b"example.org", *fingerprints(b"annabel"), *fingerprints(b"correct horse")]

    cache.accepted(question("annabel", b"correct horse"))

    assert [secret for secret in telling if secret in table(cache)] == []


@pytest.mark.parametrize("part", [pytest.param(8, id="service"), pytest.param(24, id="digest")])
def test_two_caches_have_different_keys(cache: Cache, part: int) -> None:
    other = Cache(None, 10.0)

    cache.accepted(question())
    other.accepted(question())

    assert only_bucket(cache)[part : part + 8] != only_bucket(other)[part : part + 8]


def test_users_with_the_same_password_have_different_digests(cache: Cache) -> None:
    cache.accepted(question("ann"))
    cache.accepted(question("bob"))

    digests = {bucket[24:] for bucket in buckets_in_use(cache)}
    assert len(digests) == 2


def test_its_repr_shows_no_content(cache: Cache) -> None:
    cache.accepted(question("annabel", b"correct horse"))

    shown = repr(cache)

    assert shown.startswith("<pysaslauthd.engine.cache.Cache object at ")
    assert "annabel" not in shown


@pytest.mark.parametrize("key", [b"", b"k", b"k" * 32, b"\xff" * 64], ids=len)
@pytest.mark.parametrize("message", [b"", b"m", b"m" * 64, b"m" * 9000], ids=len)
def test_its_hmac_is_the_standard_librarys(key: bytes, message: bytes) -> None:
    assert keyed_hmac(key)(message) == hmac.digest(key, message, "sha256")
