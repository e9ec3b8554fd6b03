"""The shim between a process and its disk: compiled when needed, set by environment, watched through a shared page."""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

from desk import Skip

SOURCE = Path(__file__).with_name("shim.c")


def build(dir: Path) -> Path:
    """Compiles the shim into a directory."""
    if shutil.which("gcc") is None:
        raise Skip("gcc is not installed")
    library = dir / "shim.so"
    if not library.exists():
        command = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            raise Skip(f"gcc cannot compile the shim: {done.stderr.decode(errors='replace')[-300:]}")
    return library


class Shim:
    """One process's shim; the page is read after, or while, it runs."""

    def __init__(self, library: Path, page: Path, below: Path):
        self.library, self.path, self.below = library, page, below
        page.write_bytes(bytes(4096))
        with page.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)

    def env(self, do: str, at: int = 0, usec: int = 0) -> dict:
        self.page[:] = bytes(4096)
        names = {"TORTURE_BELOW": self.below, "TORTURE_PAGE": self.path, "TORTURE_DO": do, "TORTURE_AT": at}
        names |= {"LD_PRELOAD": self.library, "TORTURE_USEC": usec}
        return {name: str(value) for name, value in names.items()}

    def _number(self, nth: int) -> int:
        return struct.unpack_from("<Q", self.page, 8 * nth)[0]

    @property
    def calls(self) -> int:
        return self._number(0)

    @property
    def at(self) -> int:
        return self._number(1)

    @property
    def again(self) -> int:
        return self._number(2)

    @property
    def syncs(self) -> int:
        return self._number(3)

    @property
    def what(self) -> str:
        text = lambda start, size: self.page[start : start + size].split(b"\0")[0].decode(errors="replace")
        return f"{text(32, 32)} of {Path(text(64, 256)).name}"
