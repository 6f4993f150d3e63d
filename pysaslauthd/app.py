"""The front: the process that talks to strangers, put together from settings."""

import asyncio
import contextlib
import gc
import logging
import resource
import socket
from collections.abc import Callable, Coroutine

from pysaslauthd import channel
from pysaslauthd.config.settings import Settings
from pysaslauthd.engine.audit import Audit
from pysaslauthd.engine.authenticator import Authenticator
from pysaslauthd.engine.names import Names
from pysaslauthd.plugins import find_mechanism
from pysaslauthd.server.mux import MuxDoor
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
        Audit(names, verbose=settings.verbose),
        settings.deadline,
    )


def build_door(settings: Settings, engine: Authenticator) -> MuxDoor:
    """Return the mux door in front of *engine*, with as many connections as descriptors allow."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MuxDoor(
        asyncio.get_running_loop(),
        engine.check,
        limits=Limits(
            settings.login_bytes,
            settings.password_bytes,
            settings.service_bytes,
            settings.realm_bytes,
        ),
        bounds=Bounds(settings.idle_after, max(descriptors - SPARE_DESCRIPTORS, 1)),
        on_outage=ON_OUTAGE[settings.on_outage],
    )


class Front:
    """Serves *listeners* until the supervisor says stop, or is gone."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        to_supervisor: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._supervisor = to_supervisor
        self._on_ready = on_ready
        self._stopped = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._door: MuxDoor
        self._engine: Authenticator

    async def run(self) -> None:
        """Open the backend, serve, and leave when everybody is answered."""
        loop = asyncio.get_running_loop()
        await self._swap(self._settings)
        gc.freeze()  # what lives as long as the process need not be looked at again
        loop.add_reader(self._supervisor, self._on_word)
        self._on_ready()
        self._say(channel.READY)
        self._beat()
        await self._stopped.wait()
        loop.remove_reader(self._supervisor)
        await self._door.stop(STOP_GRACE)
        await self._engine.backend.close()

    async def _swap(self, settings: Settings) -> None:
        """Serve by *settings* from now on; what the old door began, it finishes."""
        engine = build_authenticator(settings)
        await engine.backend.open()
        door = build_door(settings, engine)
        if hasattr(self, "_door"):
            self._door.unlisten()
            self._in_background(self._retire(self._door, self._engine, self._settings.idle_after))
        for listener in self._listeners:
            door.listen(listener)
        self._door, self._engine, self._settings = door, engine, settings

    async def _retire(self, door: MuxDoor, engine: Authenticator, grace: float) -> None:
        await door.drain(grace)
        await engine.backend.close()

    async def _reload(self, settings: Settings) -> None:
        async with self._reloading:
            await self._swap(settings)
        log.info("reloaded")
        self._say(channel.RELOADED)

    def _on_word(self) -> None:
        word = channel.receive(self._supervisor)
        if word is None:
            return
        if word in {channel.STOP, b""}:
            self._stopped.set()
        elif word.startswith(channel.RELOAD):
            self._in_background(self._reload(channel.decode_reload(word)))

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

    async def run() -> None:
        await Front(settings, listeners, to_supervisor, on_ready).run()

    asyncio.run(run())
