"""Send actions to an HTTP API in batches of one feed each, no more often than it allows, and again what it refused.

    echo '{"feed": "eu", "did": "like"}' > actions.jsonl
    python examples/api_batches.py --fake-api --push actions.jsonl --until-empty
    python examples/api_batches.py https://api.example.com/actions  # until Ctrl-C

A line of actions.jsonl is a JSON object with a `feed`. The API gets {"feed": ..., "actions": [...]} and answers
{"refused": [places in actions]}. Start it several times: together they keep to the rates, and the batch of a
killed process comes back when its lease runs out. The server is $REDIS_URL, by default the one on this machine.
"""

import argparse
import json
import os
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import redis

from redisq import Batch, Buffer, Rate, Worker

FAKE_API = 'data:,{"refused": []}'  # a URL that answers this
RATES = (Rate(3, per=1), Rate(100, per=60))


def main() -> None:
    """Fill the buffer, and work it off."""
    parser = argparse.ArgumentParser(description="Send actions to an HTTP API in batches.")
    parser.add_argument("endpoint", nargs="?", help="the URL of the API")
    parser.add_argument("--fake-api", action="store_true", help="without an API: everything is accepted")
    parser.add_argument("--push", type=Path, metavar="FILE", help="first push the actions of this file")
    parser.add_argument("--until-empty", action="store_true", help="end when everything is sent")
    args = parser.parse_args()
    if bool(args.endpoint) == args.fake_api:
        parser.error("give the URL of an API, or --fake-api")
    endpoint = args.endpoint or FAKE_API
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
    # A batch leaves with 100 actions, or when its feed has waited two seconds; after five failures it is a dead letter.
    actions: Buffer[dict[str, Any]] = Buffer(
        client, "api-batches", min_size=100, max_wait=2, max_attempts=5, rates=RATES
    )

    def send(batch: Batch[dict[str, Any]]) -> None:
        body = json.dumps({"feed": batch.group, "actions": batch.items}).encode()
        request = urllib.request.Request(endpoint, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:  # an error status raises: all of it, later
            refused = json.load(response)["refused"]
        batch.fail_at(*refused, reason="refused")  # these alone, later
        print(f"{batch.group}: {len(batch.items) - len(refused)} accepted, {len(refused)} refused", flush=True)

    worker = Worker(actions, send, size=500, concurrency=3)

    def stop_when_empty() -> None:
        while (held := actions.stats()).waiting + held.leased + held.delayed:
            time.sleep(0.2)
        worker.stop()

    if args.push:
        with args.push.open() as lines:
            for line in lines:
                action = json.loads(line)
                actions.push(action, group=action["feed"])
    if args.until_empty:
        threading.Thread(target=stop_when_empty, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
