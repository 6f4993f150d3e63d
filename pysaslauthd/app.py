"""The front: the process that talks to strangers, put together from settings."""

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Coroutine

from pysaslauthd import channel, logs
from pysaslauthd.config.settings import Settings
from pysaslauthd.doors import Doors
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import AddressSource, Authenticator
from pysaslauthd.engine.cache import Cache
from pysaslauthd.engine.exchange import Parts
from pysaslauthd.engine.library import store_of
from pysaslauthd.engine.names import Names
from pysaslauthd.errors import StartupError
from pysaslauthd.link import Addresses, Link, Workers
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.server.listener import Listeners
from pysaslauthd.worker import ADDRESSES, VERIFIER
from pysaslauthd.workers.pool import Source

log = logging.getLogger(__name__)


def build_authenticator(
    settings: Settings, source: Source, addresses: AddressSource
) -> Authenticator:
    """Return the engine that *settings* describe, with its backend and workers from *source*."""
    return build_parts(settings, source, addresses).authenticator


def build_parts(settings: Settings, source: Source, addresses: AddressSource | None) -> Parts:
    """Return the same with what doors need that speak SASL; *addresses*: None where they know."""
    names = Names(settings.combine_realm, settings.local_domain or socket.gethostname())
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


class Front:
    """Serves *listeners* until the supervisor says stop, or is gone."""

    def __init__(
        self,
        listeners: Listeners,
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
        self._doors: Doors | None = None
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
        if self._doors is not None:
            await self._doors.stop()
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
        parts = build_parts(settings, source, self._addresses)
        engine = parts.authenticator
        try:
            async with asyncio.timeout(settings.deadline):
                await engine.backend.open()
        except TimeoutError:
            log.warning("%s is not ready yet: serving without it", engine.backend.name)
        if self._stopped.is_set():
            return
        logs.set_verbose(verbose=settings.verbose)
        doors = self._doors or Doors(self._listeners)
        doors.follow(settings, parts)
        before, self._engine = self._engine, engine
        self._engines.add(engine)
        if self._doors is None:
            self._doors = doors
            self._on_ready()
            self._link.say(channel.READY)  # before the first client can know that it is so
            doors.open()
        if before is not None:
            before.backend.retire()
            self._in_background(self._retire(doors, before))

    async def _retire(self, doors: Doors, engine: Authenticator) -> None:
        await doors.answered()
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
    listeners: Listeners,
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
