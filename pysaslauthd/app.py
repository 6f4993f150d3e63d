"""The front: the process that talks to strangers, put together from settings."""

import asyncio
import contextlib
import gc
import logging
import resource
import socket
from collections.abc import Callable, Coroutine

from pysaslauthd import channel, logs
from pysaslauthd.config.settings import Settings
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.names import Names
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.server.mux import MuxDoor, Rules
from pysaslauthd.server.waiting import Bounds
from pysaslauthd.wire.mux import OUTAGE_REPLY, Limits, encode_reply

log = logging.getLogger(__name__)

SPARE_DESCRIPTORS = 256  # for everything that is not a client
STOP_GRACE = 0.25  # seconds for clients that have connected and not yet asked
ON_OUTAGE = {"tempfail": OUTAGE_REPLY, "no": encode_reply("NO internal mechanism failure")}


def build_authenticator(settings: Settings) -> Authenticator:
    """Return the engine that *settings* describe, with its backend."""
    names = Names(settings.combine_realm, settings.local_domain or socket.gethostname())
    return Authenticator(
        find_mechanism(settings).make(settings),
        names,
        Audit(names),
        settings.deadline,
    )


def build_rules(settings: Settings, engine: Authenticator) -> Rules:
    """Return how the mux door serves, with as many connections as descriptors allow."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = min(SPARE_DESCRIPTORS, descriptors // 2)
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
        listeners: list[socket.socket],
        to_supervisor: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        self._listeners = listeners
        self._supervisor = to_supervisor
        self._on_ready = on_ready
        self._stopped = asyncio.Event()
        self._following = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._door: MuxDoor | None = None
        self._engine: Authenticator | None = None

    async def run(self, settings: Settings) -> None:
        """Open the backend, serve, and leave when everybody is answered."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._supervisor, self._on_word)
        self._beat()
        stopped = asyncio.create_task(self._stopped.wait())
        serving = asyncio.create_task(self._follow(settings))
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # for its exception, where it has one
            gc.freeze()  # what lives as long as the process need not be looked at again
            await stopped
        loop.remove_reader(self._supervisor)
        if self._door is not None:
            await self._door.stop(STOP_GRACE)

    async def _follow(self, settings: Settings) -> None:
        """Serve by *settings* from now on; what the engine before has begun, it finishes."""
        async with self._following:
            await self._follow_in_turn(settings)

    async def _follow_in_turn(self, settings: Settings) -> None:
        engine = build_authenticator(settings)
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
        if self._door is None:
            self._door = MuxDoor(asyncio.get_running_loop(), rules)
            self._on_ready()
            self._say(channel.READY)  # before the first client can know that it is so
            for listener in self._listeners:
                self._door.listen(listener)
        else:
            self._door.follow(rules)
        if before is not None:
            self._in_background(self._retire(self._door, before))

    async def _retire(self, door: MuxDoor, engine: Authenticator) -> None:
        await door.answered()
        await engine.backend.close()

    async def _reload(self, word: bytes) -> None:
        try:
            await self._follow(channel.decode_reload(word))
        except Exception:
            log.exception("not reloaded")
        else:
            log.info("reloaded")
        self._say(channel.RELOADED)

    def _on_word(self) -> None:
        word = channel.receive(self._supervisor)
        if word == b"":
            self._stopped.set()
        elif word is not None:
            self._in_background(self._reload(word))

    def _beat(self) -> None:
        self._say(channel.ALIVE)
        asyncio.get_running_loop().call_later(channel.SECONDS_BETWEEN_HEARTBEATS, self._beat)

    def _say(self, word: bytes) -> None:
        # A supervisor that does not listen has its own troubles.
        with contextlib.suppress(OSError):
            self._supervisor.send(word)

    def _in_background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def serve(
    settings: Settings,
    listeners: list[socket.socket],
    to_supervisor: socket.socket,
    on_ready: Callable[[], None],
) -> None:
    """Run the front; returns when it has stopped. *on_ready* is called when it serves."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Not asyncio.run: that waits for threads, and one may hang in a file system.
    loop.run_until_complete(Front(listeners, to_supervisor, on_ready).run(settings))
