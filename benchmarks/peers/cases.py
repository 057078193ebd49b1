"""The peers, at the versions of the day, what each promises, and the ways in which each is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HIREDIS = "hiredis==3.5.0"  # for all that can use it, redisq too, so that no reply is parsed in plain Python

Promise = Literal["at least once", "at least once if asked", "at most once"]
"""What becomes of an item whose worker dies: run again some time; so only with an option, and else set aside; gone."""


@dataclass(frozen=True)
class Peer:
    """One package: the modules are `benchmarks.peers.NAME`, the first requirement is the peer itself."""

    name: str
    requirements: tuple[str, ...]
    promises: dict[str, str]
    """For the modes that begin with the key: what its documentation or source says of a worker that dies."""
    source: Literal["PyPI", "npm", "gem"] = "PyPI"
    """Where the requirements are from; a gem is one that this machine's Ruby finds, and has none."""

    def promise(self, mode: str) -> str:
        """Give what it says of one mode."""
        return next(text for start, text in self.promises.items() if mode.startswith(start))


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    peer: str
    mode: str
    promise: Promise
    at_once: int = 1
    """Handlers that may run at a time."""
    batch: int = 1
    """Items of a call or of a handler's batch, at most."""
    worker: bool = True
    """Whether the peer's own worker runs the handler, rather than a loop by hand."""
    share: float = 1.0
    """Part of the items that it gets, so that a slow one ends, too."""
    quick: bool = False
    """Whether it is measured when time is short: what decides a ratio."""


PEERS = (
    Peer(
        "redisq",
        (),
        {
            "": "At least once with reserve: the lease (30 s by default, extended while the handler runs) runs out, "
            "and the next reserve hands the batch out again. At most once with pop."
        },
    ),
    Peer(
        "rq",
        ("rq==3.0.0", HIREDIS),
        {
            "": "Set aside: when the heartbeat of a dead worker is over, maintenance moves the job to "
            "the FailedJobRegistry as abandoned; it runs again only if it was enqueued with retry=Retry(...)."
        },
    ),
    Peer(
        "huey",
        ("huey==3.5.4", "redis==8.1.0", HIREDIS),
        {"": "At most once: RedisHuey takes a task with BRPOP; what the dead worker held is gone."},
    ),
    Peer(
        "dramatiq",
        ("dramatiq[redis]==2.2.1", HIREDIS),
        {
            "": "At least once: messages of a worker without a heartbeat for 60 s are put back, by maintenance that "
            "one command in a thousand does, of any live worker."
        },
    ),
    Peer(
        "arq",
        ("arq==0.28.0", HIREDIS),
        {
            "": "At least once (pessimistic execution): the job stays in the queue until it is done, and is taken "
            "again when its in-progress key expires, after job_timeout + 10 s: 310 s by default."
        },
    ),
    Peer(
        "saq",
        ("saq[redis]==0.26.4", "typing-extensions==4.16.0", HIREDIS),  # which it imports and does not require
        {
            "": "Set aside: the sweep (each 60 s) aborts a job that is over its timeout (10 s); it runs "
            "again only if it was enqueued with retries > 1."
        },
    ),
    Peer(
        "taskiq",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", HIREDIS),
        {
            "stream": "At least once: messages that are not acknowledged within idle_timeout, 600 s by default, are "
            "claimed by another worker, after it has received a new one.",
            "list": "At most once, as its documentation warns: the list broker takes a task with BRPOP.",
        },
    ),
    Peer(
        "streaq",
        ("streaq==7.2.0",),  # on coredis, with a parser of its own
        {"": "At least once: messages of a stream that are idle for idle_timeout, 60 s by default, are claimed."},
    ),
    Peer(
        "tasktiger",
        ("tasktiger==0.26.3", HIREDIS),
        {
            "": "Set aside: tasks without a heartbeat for 60 s are looked for each 30 s and moved to the error queue; "
            "they are run again only if they were queued with retry=True or retry_on."
        },
    ),
    Peer(
        "bullmq",
        ("bullmq==3.4.4", HIREDIS),
        {
            "": "At least once: a job whose lock (30 s) expired is stalled, and moved back by a check each 30 s; the "
            "second time it fails (maxStalledCount 1)."
        },
    ),
    Peer(
        "bullmq_node",
        ("bullmq@6.7.0", "ioredis@6.0.0"),
        {
            "": "At least once: a job whose lock (30 s) expired is stalled, and moved back by a check each 30 s; the "
            "second time it fails (maxStalledCount 1)."
        },
        source="npm",
    ),
    Peer(
        "sidekiq",
        (),
        {
            "": "At most once: the plain fetch is a BRPOP, and its wiki says that a job is lost forever if Sidekiq "
            "crashes while it processes it. super_fetch, which keeps the job in Redis, is part of Sidekiq Pro."
        },
        source="gem",
    ),
)

LEAST: Promise = "at least once"
ASKED: Promise = "at least once if asked"
MOST: Promise = "at most once"
TASKS = "pushed by 50 tasks"
"""How a mode ends whose items are enqueued by 50 asyncio tasks, or promises of Node's; see `contract.each`."""
CASES = (
    Case("redisq", "PriorityQueue, Worker", LEAST, share=0.15, quick=True),
    Case("redisq", "Buffer, Worker", LEAST, share=0.15),
    Case("redisq", "PriorityQueue, Worker, concurrency 8", LEAST, at_once=8, share=0.15, quick=True),
    Case("redisq", "asyncio, PriorityQueue, Worker", LEAST, share=0.15),
    Case("redisq", "asyncio, PriorityQueue, Worker, concurrency 10", LEAST, at_once=10, share=0.15, quick=True),
    Case("redisq", "asyncio, PriorityQueue, Worker, concurrency 50", LEAST, at_once=50, share=0.15),
    Case(
        "redisq",
        "asyncio, PriorityQueue, Worker, concurrency 50, pushed by 50 tasks",
        LEAST,
        at_once=50,
        share=0.15,
        quick=True,
    ),
    Case("redisq", "PriorityQueue, reserve and ack", LEAST, worker=False, share=0.15),
    Case("redisq", "Buffer, reserve and ack", LEAST, worker=False, share=0.15),
    Case("redisq", "PriorityQueue, for batch in batches", LEAST, worker=False, share=0.15),
    Case("redisq", "Buffer, for batch in batches", LEAST, worker=False, share=0.15, quick=True),
    Case("redisq", "PriorityQueue, reserve_many(100) and ack each", LEAST, batch=100, worker=False, share=0.15),
    Case("redisq", "PriorityQueue, pop", MOST, worker=False, share=0.15, quick=True),
    Case("redisq", "Buffer, pop", MOST, worker=False, share=0.15, quick=True),
    Case(
        "redisq",
        "asyncio, PriorityQueue, pop by 50 tasks, pushed by 50 tasks",
        MOST,
        at_once=50,
        worker=False,
        share=0.15,
        quick=True,
    ),
    Case("redisq", "PriorityQueue, batches of 100, Worker", LEAST, batch=100),
    Case("redisq", "Buffer, batches of 100, Worker", LEAST, batch=100, quick=True),
    Case("redisq", "PriorityQueue, batches of 100, pop", MOST, batch=100, worker=False),
    Case("redisq", "Buffer, batches of 100, pop", MOST, batch=100, worker=False),
    Case("rq", "Worker (forks)", ASKED, share=0.01),
    Case("rq", "SimpleWorker", ASKED, share=0.025),
    Case("rq", "SimpleWorker, no results", ASKED, share=0.025),
    Case("rq", "SimpleWorker, no results, enqueue_many of 100", ASKED, batch=100, share=0.025),
    Case("huey", "RedisHuey", MOST, share=0.15, quick=True),
    Case("huey", "RedisHuey, workers=8", MOST, at_once=8, share=0.15, quick=True),
    Case("dramatiq", "1 thread", LEAST, share=0.05),
    Case("dramatiq", "8 threads", LEAST, at_once=8, share=0.15, quick=True),
    Case("arq", "max_jobs=1", LEAST, share=0.0005),
    Case("arq", "max_jobs=10", LEAST, at_once=10, share=0.05),
    Case("arq", "max_jobs=10, poll_delay=0.001, no results", LEAST, at_once=10, share=0.1),
    Case("arq", f"max_jobs=50, poll_delay=0.001, no results, {TASKS}", LEAST, at_once=50, share=0.1),
    Case("saq", "concurrency=1", ASKED, share=0.1),
    Case("saq", "concurrency=10", ASKED, at_once=10, share=0.1),
    Case("saq", "concurrency=10, no results", ASKED, at_once=10, share=0.1),
    Case("saq", f"concurrency=10, no results, {TASKS}", ASKED, at_once=10, share=0.1),
    Case("saq", f"concurrency=50, no results, {TASKS}", ASKED, at_once=50, share=0.1),
    Case("taskiq", "stream, 1 task", LEAST, share=0.15, quick=True),
    Case("taskiq", "stream, 100 tasks", LEAST, at_once=100, share=0.15),
    Case("taskiq", f"stream, 100 tasks, {TASKS}", LEAST, at_once=100, share=0.15),
    Case("taskiq", "list, 1 task", MOST, share=0.15),
    Case("taskiq", "list, 100 tasks", MOST, at_once=100, share=0.15),
    Case("taskiq", f"list, 100 tasks, {TASKS}", MOST, at_once=100, share=0.15),
    Case("streaq", "concurrency=1", LEAST, share=0.1),
    Case("streaq", "concurrency=16", LEAST, at_once=16, share=0.1),
    Case("streaq", f"concurrency=50, no results, {TASKS}", LEAST, at_once=50, share=0.1),
    Case("streaq", "concurrency=16, no results, enqueue_many of 100", LEAST, at_once=16, batch=100, share=0.1),
    Case("tasktiger", "fork", ASKED, share=0.01),
    Case("tasktiger", "sync", ASKED, share=0.05),
    Case("tasktiger", "sync, batches of 100", ASKED, batch=100, share=0.15),
    *(
        case
        for peer in ("bullmq", "bullmq_node")
        for case in (
            Case(peer, "concurrency=1", LEAST, share=0.1, quick=True),
            Case(peer, "concurrency=1, removeOnComplete", LEAST, share=0.1),
            Case(peer, "concurrency=10, removeOnComplete", LEAST, at_once=10, share=0.1),
            Case(peer, f"concurrency=50, removeOnComplete, {TASKS}", LEAST, at_once=50, share=0.1, quick=True),
            Case(peer, "concurrency=1, removeOnComplete, addBulk of 100", LEAST, batch=100, share=0.1),
            Case(peer, "concurrency=10, removeOnComplete, addBulk of 100", LEAST, at_once=10, batch=100, share=0.1),
        )
    ),
    Case("bullmq_node", "by hand, removeOnComplete", LEAST, worker=False, share=0.1, quick=True),
    Case("sidekiq", "concurrency=1", MOST, share=0.15, quick=True),
    Case("sidekiq", "concurrency=5", MOST, at_once=5, share=0.15),  # the default from 7.0 on
    Case("sidekiq", "concurrency=10", MOST, at_once=10, share=0.15, quick=True),  # and before
    Case("sidekiq", "concurrency=1, perform_bulk of 100", MOST, batch=100, share=0.15, quick=True),
    Case("sidekiq", "concurrency=10, perform_bulk of 100", MOST, at_once=10, batch=100, share=0.15),
)
