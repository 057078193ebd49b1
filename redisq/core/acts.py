"""What a dashboard may do to a queue; the command line names it without the dashboard's packages."""

from __future__ import annotations

from typing import Literal, get_args

Act = Literal["redrive", "discard", "pause", "purge"]
ACTS: tuple[Act, ...] = get_args(Act)
