"""A TCP proxy between evflow and its server that does what networks do: cuts connections, loses replies, leads elsewhere."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class _Pair:
    """A client's connection and the one that was made for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.deaf = False

    def cut(self) -> None:
        for end in self.ends:
            end.transport.abort()


class Proxy:
    """Listens on a port of its own and passes on to another one; may be told what to do by any thread.

    Args:
        port: Where the server listens, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """End all connections."""
        self._call(self._cut)

    def lead_to(self, port: int) -> None:
        """Pass on to another server from now on, and end all connections."""
        self._to = port
        self.cut()

    def lose_replies(self) -> None:
        """Let commands pass and their replies get lost, on all connections that there are, until they are cut."""

        def deafen() -> None:
            for pair in self._pairs:
                pair.deaf = True

        self._call(deafen)

    # --- in the proxy's thread -----------------------------------------------------------------------------

    def _call(self, act: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(act)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._cut()
            self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop)))
            self._loop.run_until_complete(server.wait_closed())
            self._loop.close()

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, back)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pass_on(reader, back, lambda: False), self._pass_on(there, writer, lambda: pair.deaf))
        finally:
            self._pairs.discard(pair)
            pair.cut()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, lost: Callable[[], bool]) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if not lost():
                    sink.write(data)
                    await sink.drain()
        sink.transport.abort()
