"""Who is on the page: each works on one request at a time, and has files as long as the page is open."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

PATIENCE = 10.0  # seconds for a request that was stopped to end: it does between two calls of a network


class Job:
    """A request that is worked on.

    Args:
        folder: of its pictures; there as soon as there is one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stopped = threading.Event()
        self.ended = threading.Event()

    def stop(self) -> None:
        """End it soon."""
        self.stopped.set()

    def wait(self) -> None:
        """Until it has ended, or for as long as one can be expected to wait."""
        self.ended.wait(PATIENCE)


class Visitor:
    """One page that is open.

    Args:
        folder: of all its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = Job(folder)
        self.job.ended.set()
        self.shown: dict[str, Job] = {}  # by tabs: whose pictures are there
        self.lock = threading.Lock()

    @contextmanager
    def working(self, tab: str) -> Iterator[Job]:
        """A request, instead of the one before, which is stopped. Of a tab, only the last pictures are kept."""
        job = Job(Path(mkdtemp(prefix=f"{tab}-", dir=self.folder)))
        with self.lock:
            before, self.job = self.job, job
        before.stop()
        before.wait()
        try:
            yield job
        finally:
            old = self.shown.get(tab) if any(job.folder.iterdir()) else job  # a request that was refused shows nothing
            if old is not job:
                self.shown[tab] = job
            if old is not None:
                shutil.rmtree(old.folder, ignore_errors=True)
            job.ended.set()


class Visitors:
    """All pages that are open. Their files are in a folder that nobody else may read, and that ends with the server."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="diffusion-labs-play-", ignore_cleanup_errors=True)
        self._here: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Of all files."""
        return Path(self._folder.name)

    def visitor(self, session: str) -> Visitor:
        """The one of a session."""
        with self._lock:
            if session not in self._here:
                self._here[session] = Visitor(Path(mkdtemp(prefix="visitor-", dir=self.folder)))
            return self._here[session]

    def leave(self, session: str) -> None:
        """Stop what a session works on, and remove its files."""
        with self._lock:
            visitor = self._here.pop(session, None)
        if visitor is not None:
            visitor.job.stop()
            visitor.job.wait()
            shutil.rmtree(visitor.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop all work, wait for it, and remove all files."""
        for visitor in list(self._here.values()):
            visitor.job.stop()
        for session in list(self._here):
            self.leave(session)
        self._folder.cleanup()
