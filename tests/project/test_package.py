"""The wheel that is built from the sdist has the scripts byte for byte, and the types."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import redisq
from redisq.core.scripts import load, names
from tests.conftest import skip_or_fail

ROOT = Path(__file__).parents[2]


def test_the_version_is_stated_once() -> None:
    """In the package, where the build backend reads it."""
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert not re.search(r"^version\b", project, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\w+)?", redisq.__version__)


@pytest.mark.timeout(300)
def test_wheel_from_sdist_has_the_same_scripts(tmp_path: Path) -> None:
    """Build as for a release, and compare every SHA1."""
    if not all(map(find_spec, ("build", "hatchling"))):
        skip_or_fail("build and hatchling are missing: pip install 'redisq[dev]'")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert "redisq/py.typed" in packed
    (metadata,) = (content.decode() for name, content in packed.items() if name.endswith(".dist-info/METADATA"))
    assert f"\nVersion: {redisq.__version__}\n" in metadata
    assert not [
        name for name in packed if not name.startswith("redisq/") and ".dist-info/" not in name
    ]  # no benchmarks, no tests
    scripts = {name[len("redisq/lua/") : -len(".lua")] for name in packed if re.match(r"redisq/lua/.*\.lua$", name)}
    assert scripts == set(names())
    assert packed["redisq/cli/steps/take.lua"] == (ROOT / "redisq" / "cli" / "steps" / "take.lua").read_bytes()
    for name in names():
        assert hashlib.sha1(packed[f"redisq/lua/{name}.lua"]).hexdigest() == load(name).sha
    with tarfile.open(sdist) as tar:
        assert any(member.endswith("/lua/README.md") for member in tar.getnames())
