"""Requests to the server: connections that are kept, and what is done while there is no answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import msgpack
import urllib3

from ...errors import StoreUnreachableError
from ..patience import Patience
from ..wire import port
from ..wire.schema import WireError
from .address import Address
from .faults import AwayError, explain, no_server, other_version, unreachable

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0  # of reading much of a large run
WRITE_SECONDS = 10.0  # then it is sent again: that does no harm
ALIVE_SECONDS = 5.0  # a stream of news says so often that it is there
MAX_CONNECTIONS = 8

T = TypeVar("T")
log = logging.getLogger(__name__)


class Link:
    """The way to one server.

    Attributes:
        reached: this process has had an answer, and has not lost its patience since.
        closing: set to let everybody who waits give up.
    """

    def __init__(self, address: Address, patience_seconds: float) -> None:
        self.address = address
        self.shown = address.shown
        self.closing = threading.Event()
        self.reached = False
        self._patience_seconds = patience_seconds
        self._headers = {
            port.VERSION_HEADER: str(port.VERSION),
            "Millrace-Request": "1",
            "Accept-Encoding": "gzip",
            "Content-Type": "application/msgpack",
            **({"Authorization": f"Bearer {address.token}"} if address.token else {}),
        }
        self._pool = self._new_pool()

    def _new_pool(self) -> urllib3.PoolManager:
        secure = {"ca_certs": self.address.authority_file} if self.address.authority_file else {}
        return urllib3.PoolManager(
            num_pools=1, maxsize=MAX_CONNECTIONS, retries=False, headers=self._headers, **secure
        )

    def after_fork(self) -> None:
        """Start anew in a child process; the parent's connections stay its own."""
        self.closing = threading.Event()
        self._pool = self._new_pool()

    def close(self) -> None:
        self._pool.clear()

    def insist(self, attempt: Callable[[], T], *, quiet: bool = False) -> T:
        """Return what `attempt` returns, when the server answers.

        Args:
            quiet: nobody's work waits for it.

        Raises:
            StoreUnreachableError: it was never reached, or stays away for too long.
        """
        patience = self.patience(quiet=quiet)
        while True:
            try:
                result = attempt()
            except AwayError as error:
                self.wait(patience, error)
            else:
                self.reached = True
                patience.over()
                return result

    def patience(self, *, quiet: bool = False) -> Patience:
        return Patience(
            self._patience_seconds,
            self.closing,
            lambda error, waited: unreachable(error, self.shown, waited),
            quiet=quiet,
        )

    def wait(self, patience: Patience, error: Exception) -> None:
        """Return when it is time to try again.

        Raises:
            StoreUnreachableError
        """
        if not self.reached:
            raise unreachable(error, self.shown) from error
        try:
            patience.nap(error)
        except StoreUnreachableError:
            self.reached = False  # who asks next does not wait all over again
            raise

    # --- what is asked ----------------------------------------------------------------------------

    def greet(self) -> float:
        """Return the time at the server.

        Raises:
            AwayError
            StoreNewerError: it is of another version, or no server.
            StoreRefusedError: it does not let this process write.
        """
        data = self._request("GET", "/api/store", None, WRITE_SECONDS)
        try:
            version, now = msgpack.unpackb(data)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            raise no_server(self.shown) from None
        if version != port.VERSION:
            raise other_version(self.shown, version)
        return float(now)

    def call(self, verb: str, **arguments: Any) -> Any:
        """Ask for what may be asked twice."""
        body = port.pack_call(port.Call(verb, arguments))
        path = "/api/store/read" if verb in port.READING else "/api/store/note"
        data = self._request("POST", path, body, ANSWER_SECONDS)
        return _understood(lambda: port.unpack_answer(verb, data))

    def write(self, writer_id: str, sending: port.Sending, groups: Iterable[bytes]) -> list[bytes]:
        """Have transactions done, each once; return the packed answers to the calls of the newest."""
        body = port.pack_writing(writer_id, sending, groups)
        data = self._request("POST", "/api/store/write", body, WRITE_SECONDS)
        return _understood(lambda: port.unpack_answers(data))

    def news(self) -> Generator[str]:
        """Yield topics as they come, and "" now and then."""
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=3 * ALIVE_SECONDS)
        answer = self._pool.request(
            "GET", f"{self.shown}/api/store/news", timeout=timeout, preload_content=False
        )
        try:
            if answer.status != 200:
                raise explain(answer.status, answer.data, self.shown)
            for line in answer:
                if not line.startswith(b"\n"):
                    yield line.removeprefix(b"data:").decode().strip() if line.startswith(b"data:") else ""
        finally:
            answer.close()

    def _request(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds)
        try:
            answer = self._pool.request(method, self.shown + path, body=body, timeout=timeout)
        except urllib3.exceptions.HTTPError as error:
            raise AwayError(_cause(error)) from error
        if answer.status != 200:
            raise explain(answer.status, answer.data, self.shown)
        return bytes(answer.data)


def _understood(read: Callable[[], T]) -> T:
    """Return what an answer says; one that makes no sense, of something in between, is as good as none."""
    try:
        return read()
    except WireError as error:
        raise AwayError(f"its answer cannot be read ({error})") from error


def _cause(error: BaseException) -> str:
    """Return what is at the bottom of an error of the library, which wraps them in one another."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    text = str(error) or type(error).__name__
    hint = ". If its certificate is of an authority of your own, name that one's file in MILLRACE_API_CA"
    return text + hint * ("CERTIFICATE_VERIFY_FAILED" in text)
