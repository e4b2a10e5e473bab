"""Connections that lose answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest


class Cutter:
    """Stands before a server, and cuts a connection when the answer to a request that writes begins.

    Attributes:
        cut: do so at the next one.
        cuts: how often it was done.
    """

    def __init__(self, url: str) -> None:
        self.cut = False
        self.cuts = 0
        self._server = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            there = socket.create_connection(self._server)
            hush = threading.Event()  # the next answer goes nowhere
            threading.Thread(target=self._requests, args=(client, there, hush), daemon=True).start()
            threading.Thread(target=self._answers, args=(there, client, hush), daemon=True).start()

    def _requests(self, client: socket.socket, there: socket.socket, hush: threading.Event) -> None:
        with client, there:
            while data := _read(client):
                if self.cut and data.startswith(b"POST /api/store/write"):
                    self.cut, self.cuts = False, self.cuts + 1
                    hush.set()
                try:
                    there.sendall(data)
                except OSError:
                    break
            _shut(client, there)

    def _answers(self, there: socket.socket, client: socket.socket, hush: threading.Event) -> None:
        while data := _read(there):
            if hush.is_set():
                break  # it is done
            try:
                client.sendall(data)
            except OSError:
                break
        _shut(client, there)


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except OSError:
        return b""


def _shut(*connections: socket.socket) -> None:
    for connection in connections:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture
def answers() -> Iterator[Callable[[str], Cutter]]:
    """Return what makes a `Cutter` before a server."""
    made: list[Cutter] = []

    def make(url: str) -> Cutter:
        made.append(Cutter(url))
        return made[-1]

    yield make
    for one in made:
        one.close()
