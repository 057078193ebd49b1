"""Where the peers' packages come from: PyPI and npm at fixed versions; for Sidekiq, the gem that `ruby` finds.

What is fetched stays in `.venv-peers`, a directory for each peer.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import say
from benchmarks.peers.cases import Peer

DIRECTORY = Path(__file__).parents[2] / ".venv-peers"
SIDEKIQ = Path(__file__).with_name("sidekiq.rb")


class Missing(Exception):
    """Raised when a peer needs a program that this machine lacks; says how to get it."""


def prepare(peer: Peer) -> Path:
    """Return the Python that runs a peer's file, with the peer's packages fetched if they are missing or outdated.

    Raises `Missing`.
    """
    if peer.source == "gem":
        _sidekiq()
        return Path(sys.executable)
    if peer.source == "npm" and not (shutil.which("node") and shutil.which("npm")):
        raise Missing(f"{peer.name} needs node and npm on PATH")
    directory = DIRECTORY / peer.name
    if not installed(peer):
        say(f"setting up {directory}")
        (_npm if peer.source == "npm" else _pip)(directory, peer.requirements)
        (directory / "ready").write_text("\n".join(peer.requirements))
    return directory / "bin" / "python" if peer.source == "PyPI" and peer.requirements else Path(sys.executable)


def installed(peer: Peer) -> bool:
    """Say whether a peer's packages are there, at these versions."""
    if peer.source == "gem":
        try:
            return bool(_sidekiq())
        except Missing:
            return False
    ready = DIRECTORY / peer.name / "ready"
    return not peer.requirements or (ready.exists() and ready.read_text() == "\n".join(peer.requirements))


def version(peer: Peer) -> str:
    """Return the version of the peer itself, and of what it runs on where that is not Python.

    Raises `Missing`.
    """
    if peer.source == "gem":
        return _sidekiq()
    if peer.source == "npm":
        return ", ".join((*peer.requirements, f"node@{_node()}"))
    return ", ".join(word for word in peer.requirements if word.startswith((peer.name, "taskiq")))


def _pip(directory: Path, requirements: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True)


def _npm(directory: Path, requirements: tuple[str, ...]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--prefix", str(directory), *requirements], check=True)


@functools.cache
def _node() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip().lstrip("v")


@functools.cache
def _sidekiq() -> str:
    ruby = shutil.which("ruby")
    found = subprocess.run([ruby, str(SIDEKIQ), "version"], capture_output=True, text=True) if ruby else None
    if found is None or found.returncode:
        raise Missing("sidekiq was not found: apt-get install ruby-sidekiq ruby-hiredis, or gem install sidekiq")
    return found.stdout
