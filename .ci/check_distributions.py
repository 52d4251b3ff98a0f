"""Check what the wheel and the sdist in a folder hold: the package alone, and the files that pyproject.toml lists."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

dist = Path(sys.argv[1])
(wheel,) = dist.glob("*.whl")
(sdist,) = dist.glob("*.tar.gz")

with zipfile.ZipFile(wheel) as archive:
    top = {name.split("/")[0] for name in archive.namelist()}
packages = {name for name in top if not name.endswith(".dist-info")}
if packages != {"multilevel_loss"}:
    sys.exit(f"expected the wheel to hold multilevel_loss alone, got {sorted(packages)}")

with open("pyproject.toml", "rb") as file:
    listed = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
command = ["git", "ls-files", "-z", "--", *listed]
# The build adds its metadata, and .gitignore, by which it left files out.
expected = {"PKG-INFO", ".gitignore", *subprocess.check_output(command, text=True).split("\0")[:-1]}  # noqa: S603
with tarfile.open(sdist) as archive:
    got = {name.partition("/")[2] for name in archive.getnames()}
if got != expected:
    sys.exit(f"sdist: missing {sorted(expected - got)}, unexpected {sorted(got - expected)}")
print(f"{wheel.name}: {len(top)} top-level names; {sdist.name}: {len(got)} files, as listed")
