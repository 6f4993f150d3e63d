"""The front: the process that talks to strangers, put together from settings."""

import asyncio
import gc
import logging
import resource
import socket
from collections.abc import Callable, Coroutine, Sequence

from pysaslauthd import channel, logs
from pysaslauthd.config.settings import Settings
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import AddressSource, Authenticator
from pysaslauthd.engine.cache import Cache
from pysaslauthd.engine.exchange import Parts
from pysaslauthd.engine.library import store_of
from pysaslauthd.engine.names import Names
from pysaslauthd.errors import StartupError
from pysaslauthd.link import Addresses, Link, Workers
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.server.mux import MuxDoor, Rules
from pysaslauthd.server.waiting import Bounds
from pysaslauthd.wire.mux import OUTAGE_REPLY, Limits, encode_reply
from pysaslauthd.worker import ADDRESSES, VERIFIER
from pysaslauthd.workers.pool import Source

log = logging.getLogger(__name__)

SPARE_DESCRIPTORS = 256  # for everything that is neither client nor server
STOP_GRACE = 0.25  # seconds for clients that have connected and not yet asked
ON_OUTAGE = {"tempfail": OUTAGE_REPLY, "no": encode_reply("NO internal mechanism failure")}


def build_authenticator(
    settings: Settings, source: Source, addresses: AddressSource
) -> Authenticator:
    """Return the engine that *settings* describe, with its backend and workers from *source*."""
    return build_parts(settings, source, addresses).authenticator


def build_parts(
    settings: Settings,
    source: Source,
    addresses: AddressSource | None,
    *,
    trusts_realms: bool = True,
) -> Parts:
    """Return the same with what doors need that speak SASL; *addresses*: None where they know.

    *trusts_realms*: clients do not choose them (see `Names`).
    """
    default_realm = settings.local_domain or socket.gethostname()
    names = Names(settings.combine_realm, default_realm, trusts_realms)
    audit = Audit(names)
    backend = find_mechanism(settings).make(settings, source)
    wants_cache = settings.cache and backend.waits
    engine = Authenticator(
        backend,
        names,
        audit,
        settings.deadlines,
        cache=Cache(settings.cache_kilobytes, settings.cache_seconds) if wants_cache else None,
        addresses=addresses if settings.find_address else None,
    )
    return Parts(engine, store_of(backend), names, audit, settings.deadlines)


def build_rules(settings: Settings, engine: Authenticator) -> Rules:
    """Return how the mux door serves, with as many connections as descriptors allow."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SPARE_DESCRIPTORS + find_mechanism(settings).connections(settings)
    spare = min(wanted, descriptors // 2)
    return Rules(
        engine.check,
        Limits(
            settings.login_bytes,
            settings.password_bytes,
            settings.service_bytes,
            settings.realm_bytes,
        ),
        Bounds(settings.idle_after, descriptors - spare),
        ON_OUTAGE[settings.on_outage],
    )


class Front:
    """Serves *listeners* until the supervisor says stop, or is gone."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        to_supervisor: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        self._listeners = listeners
        self._channel = to_supervisor
        self._link = Link(to_supervisor)
        self._on_ready = on_ready
        self._stopped = asyncio.Event()
        self._following = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._door: MuxDoor | None = None
        self._engine: Authenticator | None = None
        self._engines: set[Authenticator] = set()  # with those that still finish something

    async def run(self, settings: Settings, generation: int) -> None:
        """Open the backend, serve, and leave when everybody is answered."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._on_word)
        self._addresses = Addresses(Workers(self._link, ADDRESSES, generation))
        self._beat()
        stopped = asyncio.create_task(self._stopped.wait())
        serving = asyncio.create_task(self._follow(settings, generation))
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # for its exception, where it has one
            gc.freeze()  # what lives as long as the process need not be looked at again
            await stopped
        for engine in self._engines:
            engine.end_delays()
        if self._door is not None:
            await self._door.stop(STOP_GRACE)
        if self._engine is not None:
            await self._engine.backend.close()
        self._addresses.close()
        loop.remove_reader(self._channel)

    async def _follow(self, settings: Settings, generation: int) -> None:
        """Serve by *settings* from now on; what the engine before has begun, it finishes."""
        async with self._following:
            await self._follow_in_turn(settings, generation)

    async def _follow_in_turn(self, settings: Settings, generation: int) -> None:
        source = Workers(self._link, VERIFIER, generation)
        engine = build_authenticator(settings, source, self._addresses)
        try:
            async with asyncio.timeout(settings.deadline):
                await engine.backend.open()
        except TimeoutError:
            log.warning("%s is not ready yet: serving without it", engine.backend.name)
        if self._stopped.is_set():
            return
        logs.set_verbose(verbose=settings.verbose)
        rules = build_rules(settings, engine)
        before, self._engine = self._engine, engine
        self._engines.add(engine)
        if self._door is None:
            self._door = MuxDoor(asyncio.get_running_loop(), rules)
            self._on_ready()
            self._link.say(channel.READY)  # before the first client can know that it is so
            for listener in self._listeners:
                self._door.listen(listener)
        else:
            self._door.follow(rules)
        if before is not None:
            before.backend.retire()
            self._in_background(self._retire(self._door, before))

    async def _retire(self, door: MuxDoor, engine: Authenticator) -> None:
        await door.answered()
        await engine.backend.close()
        self._engines.discard(engine)

    async def _reload(self, text: bytes, generation: int) -> None:
        try:
            await self._follow(channel.decode_settings(text), generation)
        except StartupError as error:
            log.error("not reloaded: %s", "; ".join(error.lines))
        except Exception:
            log.exception("not reloaded")
        else:
            log.info("reloaded")
        self._link.say(channel.RELOADED)

    def _on_word(self) -> None:
        word = channel.receive_word(self._channel)
        if word is None:
            return
        if word.text == b"":
            asyncio.get_running_loop().remove_reader(self._channel)
            self._stopped.set()
        elif word.text == channel.STOP:
            self._stopped.set()
        elif reload := channel.RELOAD.fullmatch(word.text):
            self._in_background(self._reload(reload[2], int(reload[1])))
        else:
            self._link.on_answer(word)

    def _beat(self) -> None:
        self._link.beat()
        asyncio.get_running_loop().call_later(channel.SECONDS_BETWEEN_HEARTBEATS, self._beat)

    def _in_background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def serve(
    listeners: Sequence[socket.socket],
    to_supervisor: socket.socket,
    on_ready: Callable[[], None],
    settings: Settings,
    generation: int,
) -> None:
    """Run the front; returns when it has stopped. *on_ready* is called when it serves.

    *generation* numbers the settings for the supervisor.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Not asyncio.run: that waits for threads, and one may hang in a file system.
    loop.run_until_complete(Front(listeners, to_supervisor, on_ready).run(settings, generation))
