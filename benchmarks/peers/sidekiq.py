"""Sidekiq, which needs `ruby`: `sidekiq.rb` has the job and pushes it, the `sidekiq` program runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.peers.contract import setting

JOB = str(Path(__file__).with_suffix(".rb"))

if __name__ == "__main__":
    os.environ["REDIS_URL"] = os.environ["PEERS_URL"]
    if sys.argv[1] == "push":
        os.execvp("ruby", ["ruby", JOB, *sys.argv[1:]])
    # -S: the program of the same Ruby, wherever it keeps it.
    options = ["--environment", "production", "--concurrency", str(setting("concurrency", 5))]
    os.execvp("ruby", ["ruby", "-S", "sidekiq", "--require", JOB, *options])
