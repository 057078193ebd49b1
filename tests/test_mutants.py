"""The conformance cases catch a broken script: each mutant fails at least one of them."""

from __future__ import annotations

import os
import re

import pytest
import redis

from redisq.scripts import load, names

from . import conformance
from .conformance import FOLDER, Case, Failure
from .mutants import Mutant, mutants, sample

# A few of each script, the same ones each time; all of them with REDISQ_MUTANTS=all, in minutes.
EACH = 8

# What changes nothing that a caller could see: what is looked for in "script: line before => line after", and why.
EQUIVALENT = {
    r"time\[1\].* => .*(ceil|/ 1001|/ 999|1000 - )": "less than two seconds; the clock is held to within ten",
    r"(buffer/|limit/|/extend|priority/push).*\(now\) => nothing|\(score\) => nothing": "a sum makes a number of it",
    r"=> redis\.call\('RPUSH', wake": "the list is empty: it has one end",
    r"=> if (tonumber\(window\)|longest) > 1 then": "what lasts for 1 ms is over before anybody can look",
    r"priority/(ack|release): if tonumber\(window\) > 0 .* => if (true|.* >= 0)": "a PEXPIRE of 0 deletes it",
    r"PEXPIRE', grants, longest \+ 1000.* => .*longest (\+ 999|- 1000)": "a TTL is held to within ten seconds",
    r"RANGE'.*0, 0, 'WITH.* => .*0, 1, 'WITH|LIMIT', 0, 1.* => .*LIMIT', 0, 2": "one entry more is read, and not used",
    r"'LRANGE', (key|batch), 0, 1.* => .*0, 2": "more is read, and not used",
    r"unpack\(ARGV, (1, 4|1, 7)\).* => .*1, (5|8)": "the first of them is taken",
    r"(first|group|following)\[(1|2)\] (and|then).* => .*\1\[(?!\2)[12]\] (and|then)": "each entry has both",
    r"=> .*#ARGV (< 3 .* 2004|< 4 or #ARGV %|< 6 or .* ~= 1|< 7 or .* ~= 0|> 2005)": "it is odd anyway",
    r"pop_longest: .*size\) > 10001": "the product of both is out of range as well",
    r"pop_longest: .* => .*KEYS\[1\], KEYS\[2\], KEYS\[2\]": "`since` is as long as `guard`, so its prefix is the same",
    r"buffer/dead: .*items > 4001": "the header's two entries count too: the bound is of that kind",
    r"audit: .*length == 0 and #places >= 0": "a batch without a list is met in an index only",
    r"if not mark then => if true": "the mark is 1 already",
    r"#ended or 0, 2.* => .*#ended or 1, 2|#remembered or 0 do => .*or 1 do": "neither is the other",
    r"#remembered > 1|#items > 1": "there are always more",
    r"'DEL', once\) => nothing|'ZREM', later, member\) -- frees.* => nothing": "see test_full_server: it frees first",
    r"extend: .*'ZREM', .* => nothing": "see test_full_server: it frees first",
    r"reserve: .*'EXISTS', .*ended.* => nothing": "see tests/faults/test_partial_writes.py: it may be denied",
    r"priority/(dead|peek|redrive|stats): .*'HLEN', rows\) => nothing": "rows is read before any write in any case",
    r"priority/extend: .*'ZCARD', later\) => nothing": "later is read before any write in any case",
    r"(ack|release): .*'ZCARD', later\) => nothing|remove: .*'ZCARD', ready\) => nothing": "the first write is to it",
    r"(pop|reserve): at = math\.min\(.* => nothing": "who is due now stays due; the idiom is release's too",
    r"if #(ripe|parked|new|delayed|longer|fresh) > 0 .*=> .*> 1": "they are pairs: there are two or none",
    r"elseif outcome ~= 'K' then => elseif true": "what is kept is written as it is",
    r"tonumber\(asked\) <= tonumber\(score\)|<= retry|a\.at <= b\.at|a\.rank <= b\.rank|place >= last": "equals",
    r"PTTL', held\) <= ": "the same TTL once more",
    r"or 1\) == math\.huge": "neither 0 nor 1 is infinite",
    r"longest, spans = tonumber\(cost\), 1, ": "a span has at least 1 ms",
    r"stats: .* => .*start - 0 <": "it makes a number of the text",
    r"\[2\]\) <= now then => if true|(parked|rows\)) >= 0|push: if parked > 0 then => if true": "it spares a look",
    r"(buffer/pop|priority/\w+): (local .*guard = .*, )KEYS\[\d\] => \2": "the guard is declared, and not used",
    r"(pop|reserve): .*attempts \+ uncounted": "it is 0; the idiom is release's too",
    r"buffer/ack: for i = 3, .* => for i = 2,|buffer/ack: .*last = {}, -1 => .*, -2": "there is no place -1",
    r"reserve: if remembered\[1\] == 'held' then => if true": "what is settled is no longer held",
}

MUTANTS = {name: mutants(name, load(name).text.decode("ascii")) for name in names()}


def listed(mutant: Mutant) -> list[str]:
    """Give the patterns under which a mutant is listed."""
    return [pattern for pattern in EQUIVALENT if re.search(pattern, f"{mutant.script}: {mutant.key}")]


def cases(name: str) -> list[Case]:
    """Give a script's cases, those with large arguments last."""
    return sorted(conformance.read(FOLDER / f"{name}.json"), key=lambda case: '"repeat"' in str(case.steps))


def caught(client: redis.Redis, mutant: Mutant, among: list[Case]) -> bool:
    """Say whether one of the cases fails."""
    for case in among:
        try:
            conformance.run(client, case, lambda name: mutant.text if name == mutant.script else load(name).text)
        except Failure:
            return True
    return False


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", names())
def test_mutants_are_caught(name: str) -> None:
    """No mutant survives but those that are listed, with the reason."""
    every = [mutant for mutant in MUTANTS[name] if not listed(mutant)]
    chosen = every if os.environ.get("REDISQ_MUTANTS") == "all" else sample(every, EACH)
    assert len(chosen) >= 5
    among = cases(name)
    with conformance.fastest() as client:
        survived = [str(mutant) for mutant in chosen if not caught(client, mutant, among)]
    assert not survived, "\n".join(survived)


def test_what_is_listed_as_equivalent_is_a_mutant() -> None:
    """No reason outlives the line that it is for, and few mutants are excused."""
    excused = [listed(mutant) for every in MUTANTS.values() for mutant in every if listed(mutant)]
    assert {pattern for patterns in excused for pattern in patterns} == set(EQUIVALENT)
    assert len(excused) < sum(map(len, MUTANTS.values())) / 15
