"""`redisq resume`: end the pause of a queue or a group."""

from __future__ import annotations

import argparse

from ..core import validate
from ..core.documents import text
from .command import Commands, describe, group_option, json_option
from .connection import (
    Client,
    Queue,
    connected,
    existing_buffer,
    find,
    heading,
    nowhere,
    open_queue,
    queue_options,
    url_of,
)
from .output import show_json
from .pause import paused_name


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "resume",
        run,
        summary="end a pause",
        text="End the pause of a queue, or of one group of a buffer, and wake a worker that waits. Says whether there "
        "was a pause; the exit code is 0 either way.",
        example="redisq resume mails\nredisq resume mails --group customer-7",
        options=queue_options(),
    )
    group_option(parser, "one group of a buffer")
    json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with connected(url_of(args)) as client:
        queue: Queue | None
        if args.group is None:
            queue = find(client, args)
            resumed = (queue or _only_paused(client, args) or nowhere(client, args)).resume()
        else:
            queue = buffer = existing_buffer(client, args)
            resumed = buffer.resume_group(args.group)
    if args.json:
        group = {} if args.group is None else {"group": text(args.group)}
        show_json({**heading(args, queue), **group, "resumed": resumed})
    else:
        print(f"{paused_name(args)} is resumed" if resumed else f"{paused_name(args)} was not paused")
    return 0


def _only_paused(client: Client, args: argparse.Namespace) -> Queue | None:
    """Return what ends the pause of a queue that holds nothing else: its kind is unknown, and both keep it alike."""
    if client.exists(validate.key_prefix(args.prefix, args.queue) + b"paused"):
        return open_queue(client, args.queue, args.prefix, "buffer")
    return None
