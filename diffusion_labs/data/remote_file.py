"""A file behind a URL, read once from its start to its end."""

import http.client
import time
import urllib.error
import urllib.request
from typing import Any

from diffusion_labs.data.errors import UnavailableError

PAUSES = (1, 4, 16)  # seconds before each further attempt
TIMEOUT = 60  # seconds to wait for a server that does not answer
PASSING = (408, 425, 429)  # of the errors 4xx


class RemoteFile:
    """A file behind an http(s) URL. Where a connection fails, another goes on from there, after a pause.

    A server must say how long the file is (``Content-Length``), so that a connection that was cut cannot pass for the
    end of the file.

    Args:
        url: the address; what follows a ``?``, which may be a secret, is left out of errors.

    Raises:
        UnavailableError: when reading, if no attempt succeeds, or the file is another than before.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.position = 0
        self.identity: tuple[int, str | None] | None = None  # its length and its tag, which says its version
        self._response: Any = None

    def read(self, size: int) -> bytes:
        """Some bytes, at most ``size``; none at the end."""
        for attempt in range(len(PAUSES) + 1):
            if attempt:
                time.sleep(PAUSES[attempt - 1])
            try:
                return self._read(size)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                problem = error
                if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in PASSING:
                    break
        raise self._error(f"cannot be read from byte {self.position:,} on, in {attempt + 1} attempts ({problem})")

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, size: int) -> bytes:
        if self.identity is not None and self.position == self.identity[0]:
            return b""
        if self._response is None:
            self._connect()
        data: bytes = self._response.read(size)
        if not data:
            raise ConnectionError("the connection was cut")
        self.position += len(data)
        return data

    def _connect(self) -> None:
        """Open a connection to where the last one ended. A server may begin anew, and what is known is thrown away."""
        request = urllib.request.Request(self.url)
        if self.position:
            request.add_header("Range", f"bytes={self.position}-")
        self._response = response = urllib.request.urlopen(request, timeout=TIMEOUT)
        start = self.position if response.status == 206 else 0
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException("the server sent another part of the file")
        if response.length is None:
            raise self._error("its server does not say how long it is (Content-Length)")
        identity = (start + response.length, response.headers.get("ETag"))
        if self.identity not in (None, identity):
            raise self._error("has changed while it was read")
        self.identity = identity
        while start < self.position:
            thrown = len(response.read(min(2**17, self.position - start)))
            if not thrown:
                raise ConnectionError("the connection was cut")
            start += thrown

    def _error(self, problem: str) -> UnavailableError:
        return UnavailableError(
            f"{shown(self.url)}: {problem}; check the address and the network, or copy it to a disk, then go on"
        )


def shown(name: str) -> str:
    """A URL without what may be a secret; other names as they are."""
    return name.partition("?")[0] if is_url(name) else name


def is_url(name: str) -> bool:
    """Whether it is the address of a ``RemoteFile``."""
    return name.startswith(("http://", "https://"))
