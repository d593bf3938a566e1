"""Where the networks under `src/talkgen/models/assets/` came from: take them from there again.

They are in the wheel of MediaPipe 0.10.21, which pip downloads; what is pinned in
`talkgen.models._assets` is checked, and nothing is written that differs.

    python scripts/fetch_assets.py [FOLDER]
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from talkgen.models import _assets

WHEEL = "mediapipe==0.10.21"
PLATFORM = ["--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:"]
FOLDER = Path(_assets.__file__).parent / "assets"


def main(folder: Path) -> None:
    """Write the pinned files into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", f"--dest={scratch}"]
        subprocess.run([*pip, *PLATFORM, WHEEL], check=True)
        (wheel,) = Path(scratch).glob("mediapipe-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for asset in _assets.ASSETS:
                unpack(archive, asset, folder)


def unpack(archive: zipfile.ZipFile, asset: _assets.Asset, folder: Path) -> None:
    """Write one file, if it is the pinned one."""
    data = archive.read(f"{asset.origin}/{asset.name}")
    if hashlib.sha256(data).hexdigest() != asset.sha256:
        sys.exit(f"{asset.name} is not the pinned one")
    (folder / asset.name).write_bytes(data)
    print(f"{folder / asset.name}  {asset.sha256}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
