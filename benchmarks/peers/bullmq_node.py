"""BullMQ's package for Node, which needs `node` and `npm`: `bullmq_node.mjs` does the work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.peers.setup import DIRECTORY

if __name__ == "__main__":
    os.environ["PEERS_NODE"] = str(DIRECTORY / "bullmq_node")
    os.execvp("node", ["node", str(Path(__file__).with_suffix(".mjs")), *sys.argv[1:]])
