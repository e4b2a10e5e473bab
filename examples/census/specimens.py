"""Four files that no installation need have: broken, no text, too large, vanished.

With them, every run of the demo shows what becomes of such files, also where the installation is in best order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def specimens(max_bytes: int) -> Iterator[str]:
    """Make the files in a temporary folder and yield that folder's path."""
    with TemporaryDirectory(prefix="millrace-census-") as folder:
        package = Path(folder, "specimens")
        package.mkdir()
        package.joinpath("broken.py").write_text("def broken(:\n    pass\n")
        package.joinpath("no_text.py").write_bytes(b"first = 1\nsecond = 2\nthird = '\xff\xfe'\n")
        package.joinpath("too_large.py").write_text("# nothing to see\n" * (max_bytes // 17 + 1))
        package.joinpath("vanished.py").symlink_to(package / "nowhere.py")
        yield folder
