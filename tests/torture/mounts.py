"""Real file systems in images that lie in memory, and a way to cut their power."""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

from desk import Skip

# FS_IOC_SHUTDOWN of ext4 and XFS; 2 says that the log is not flushed either.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
# What mkfs wants at least, and how.
MAKE = {
    "ext4": (64 << 20, ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "e2fsprogs"),
    "xfs": (320 << 20, ["mkfs.xfs", "-q", "-f"], "xfsprogs"),
}
LIBC = ctypes.CDLL(None, use_errno=True)


class Mount:
    """An image, its loop device, and where it is mounted."""

    def __init__(self, fs: str, dir: Path, size: int | None = None):
        least, command, package = MAKE[fs]
        if os.geteuid() != 0:
            raise Skip("only root may mount")
        if shutil.which(command[0]) is None:
            install(package)
        if shutil.which(command[0]) is None:
            raise Skip(f"{command[0]} is not installed, and apt-get cannot install {package}")
        dir.mkdir(parents=True, exist_ok=True)
        self.fs, self.image, self.dir = fs, dir / "image", dir / "mounted"
        self.dir.mkdir()
        with self.image.open("wb") as image:
            image.truncate(max(size or 0, least) if fs == "xfs" else size or least)
        subprocess.run([*command, str(self.image)], check=True, capture_output=True)
        attached = subprocess.run(["losetup", "--find", "--show", str(self.image)], capture_output=True, text=True, check=False)
        if attached.returncode != 0:
            raise Skip(f"there is no loop device: {attached.stderr.strip()}")
        self.device = attached.stdout.strip()
        try:
            self.mount()
        except OSError as why:
            self.detach()
            raise Skip(f"mounting is not allowed here: {why}") from None

    def mount(self) -> None:
        if LIBC.mount(self.device.encode(), str(self.dir).encode(), self.fs.encode(), 0, None) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def unmount(self, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while LIBC.umount2(str(self.dir).encode(), 0) != 0:
            code = ctypes.get_errno()
            if code != errno.EBUSY or time.monotonic() > end:
                raise OSError(code, f"cannot unmount {self.dir}: {os.strerror(code)}")
            time.sleep(0.002)

    def cut(self) -> None:
        """From now on nothing reaches the disk any more, what was not synced least of all."""
        fd = os.open(self.dir, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def power_on(self) -> None:
        self.unmount()
        self.mount()

    def detach(self) -> None:
        LIBC.umount2(str(self.dir).encode(), 2)
        subprocess.run(["losetup", "--detach", self.device], check=False, capture_output=True)

    def __enter__(self) -> "Mount":
        return self

    def __exit__(self, *_) -> None:
        self.detach()


def install(package: str) -> None:
    """By apt-get, if we may."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "--quiet=2"], check=False, capture_output=True, env=env)
        words = ["install", "--yes", "--no-install-recommends", "--quiet=2", package]
        subprocess.run(["apt-get", *words], check=False, capture_output=True, env=env)
