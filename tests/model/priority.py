from dataclasses import dataclass
from .queue import Queue


@dataclass
class Priority(Queue):
    pass


class Member:
    pass


class Lease:
    pass
