"""The wheel that is built from the sdist is complete, and no hint installs another author's package."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import redisq
from redisq.core.scripts import load, names
from tests.conftest import skip_or_fail

ROOT = Path(__file__).parents[2]


# `redisq` on PyPI is another author's package. A hint names the distribution, a folder or a wheel.
_NAME = r"(?<![\w./-])redisq"
ANOTHER_PACKAGE = re.compile(
    rf"{_NAME}\[[a-z]|\b(?:pip|pipx|uv|poetry) (?:pip )?(?:install|add|run) [^\n`]*?{_NAME}(?![\w-])"
)
FOLDERS = ("benchmarks", "docs", "examples", "lua", "redisq", "tests", "tools", ".github", ".ci")


def texts() -> Iterator[tuple[str, str]]:
    """Yield each text file of the project, with its path."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in paths:
        if not {"node_modules", "__pycache__"} & set(path.parts):
            with contextlib.suppress(UnicodeDecodeError):
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def test_no_hint_installs_another_package() -> None:
    found = [(name, hint[0]) for name, text in texts() for hint in ANOTHER_PACKAGE.finditer(text)]
    assert [(name, hint) for name, hint in found if name != "tests/project/test_package.py"] == []


@pytest.mark.parametrize(
    ("hint", "other"),
    [
        ("pip install redisq", True),
        ("pip install 'redisq[cli]'", True),
        ("pip install -q redisq==1.7.5", True),
        ("uv add redisq", True),
        ("an environment with redisq[cli,fast]", True),
        ("pip install redisq-lua", False),
        ("pip install 'redisq-lua[cli]'", False),
        ("pip install ./redisq_lua-0.1.0-py3-none-any.whl", False),
        ("pip install -e '.[cli]'", False),
        ("pip install './redisq[cli]'", False),
    ],
)
def test_hints_for_another_package_are_found(hint: str, other: bool) -> None:
    assert bool(ANOTHER_PACKAGE.search(hint)) is other


def test_the_installed_distribution_is_redisq_lua() -> None:
    assert metadata.version("redisq-lua") == redisq.__version__


def test_the_demo_installs_only_what_it_needs(tmp_path: Path) -> None:
    """And the tests complete the same environment; neither installs what builds the documentation."""

    def installed(target: str) -> list[str]:
        plan = ["make", "-n", target, f"VENV={tmp_path / 'venv'}"]
        done = subprocess.run(plan, cwd=ROOT, check=True, capture_output=True, text=True)
        return re.findall(r"-e '\.\[([\w,]+)\]'", done.stdout)

    assert installed("demo") == ["cli,embedded,fast"]
    assert installed("test") == ["cli,embedded,fast", "dev"]
    assert installed("docs") == ["cli,embedded,fast", "dev", "dev,docs"]


def test_the_version_is_stated_once() -> None:
    """In the package, where the build backend reads it."""
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert not re.search(r"^version\b", project, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\w+)?", redisq.__version__)


@pytest.mark.timeout(300)
def test_wheel_from_sdist_has_the_same_scripts(tmp_path: Path) -> None:
    """Build as for a release, let twine check both files, and compare every SHA1."""
    if not all(map(find_spec, ("build", "hatchling", "twine"))):
        skip_or_fail("build, hatchling or twine are missing: pip install 'redisq-lua[dev]'")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("redisq_lua-*.tar.gz")
    (wheel,) = tmp_path.glob("redisq_lua-*-py3-none-any.whl")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], check=True)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert "redisq/py.typed" in packed
    (described,) = (content.decode() for name, content in packed.items() if name.endswith(".dist-info/METADATA"))
    assert f"\nName: redisq-lua\nVersion: {redisq.__version__}\n" in described
    outside = {name for name in packed if not name.startswith("redisq/") and ".dist-info/" not in name}
    assert outside == {"_redisq_pytest.py"}  # no benchmarks, no tests
    scripts = {name[len("redisq/lua/") : -len(".lua")] for name in packed if re.match(r"redisq/lua/.*\.lua$", name)}
    assert scripts == set(names())
    assert packed["redisq/cli/steps/take.lua"] == (ROOT / "redisq" / "cli" / "steps" / "take.lua").read_bytes()
    for name in names():
        assert hashlib.sha1(packed[f"redisq/lua/{name}.lua"]).hexdigest() == load(name).sha
    with tarfile.open(sdist) as tar:
        members = {member.partition("/")[2] for member in tar.getnames()}
    assert {"lua/README.md", "docs/conf.py", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"} <= members


def test_the_release_workflow_says_that_it_was_never_run_and_names_what_exists() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert text.startswith("# NEVER RUN")
    jobs = yaml.safe_load(text)["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {".ci/run", "make dist"} <= set(commands)
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    subprocess.run(["make", "-n", "dist"], cwd=ROOT, check=True, capture_output=True)


def test_pre_commit_downloads_nothing() -> None:
    """Its hooks run the tools of .venv."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [one["repo"] for one in config["repos"]] == ["local"]
    hooks = [hook for one in config["repos"] for hook in one["hooks"]]
    assert all(hook["language"] == "system" and ".venv/bin/" in hook["entry"] for hook in hooks)
