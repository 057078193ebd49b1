"""The conformance cases catch a broken script: each mutant fails at least one of them."""

from __future__ import annotations

import os
import re

import pytest
import redis

from redisq.core.scripts import load, names
from tests.scripts import conformance
from tests.scripts.conformance import FOLDER, Case, Failure
from tests.scripts.mutants import Mutant, mutants, sample

# A few of each script, the same ones each time; all of them with REDISQ_MUTANTS=all, in minutes.
EACH = 8

# What changes nothing that a caller could see: what is looked for in "script: line {before => after}", and why.
EQUIVALENT = {
    # What nobody can see.
    r"time\[\{2 => 1\}\], -6|\{- => nothing\}6, -4": "less than two seconds; the clock is held to within ten",
    r"PEXPIRE', grants, .*\{1000 => ": "a TTL is held to within ten seconds",
    r"window\) > \{0 => 1\}|acquire: if longest > \{0 => 1\}": "what lasts for 1 ms is over before anybody can look",
    r"\{'LPUSH' => 'RPUSH'\}, (queue \.\. 'wake'|wake)|pcall\(\{'RPOP' => 'LPOP'\}": "there is one wake-up at most",
    r"unpack\(\w+, 1, \{(1 => 2|2 => 3|3 => 4|4 => 5|5 => 6)\}": "the first of them are taken",
    r"buffer/pop: .*\{'ZRANK' => 'ZREVRANK'\}": "whether it is there, not where",
    # A bound that another one makes superfluous.
    r"#(limit|count|size) > \{(3 => 4|4 => 5)\}": "the number is looked at as well",
    r"#ARGV < \{(3 => 2|4 => 3|5 => 4)\} or #ARGV > \d+ or #ARGV %": "so many are an incomplete pair",
    r"#ARGV > \{(102 => 103|104 => 105|105 => 106|1003 => 1004)\} or #ARGV %": "so many are an incomplete pair",
    r"push: (if .*#ARGV < \{4 => 3\}$|.*#ARGV - \{4 => 5\} > )": "so many are an incomplete pair",
    r"ack: .*failed > \{3000 => 3001\}": "no batch has so many items: one of the places is not there",
    r"ack: .*or -\{1 => 2\}\) \+ 1\]": "there is no such place either",
    r"ack: local back, last = .* -\{1 => 2\}": "a place has no sign",
    r"ack: local odd = .* \{5 => 4\}\)": "the time has digits alone",
    # Look-ups that are spared, and what is read and not used.
    r"local special = .*EXISTS', .*\) \{> => >=\} 0|if ?\{special => true": "it spares look-ups",
    r"(if|or) call\('EXISTS', (busy(, paused_groups)?|paused, queue .*)\) \{> => >=\} 0": "it spares look-ups",
    r"if\{call\('EXISTS', paused, queue .* => true": "it spares look-ups",
    r"(failed|failures|due) \{> => >=\} 0 (or|and string)|reserve: .*#due \{> => >=\} 0 and": "it spares look-ups",
    r"#places \{> => >=\} 0": "a batch without a list is met in an index only",
    r"if\{(failed|due) > 0 or .* => true\}|ZCOUNT', delayed, '-inf', now\) (> 0 => true|\{> => )": "it spares look-ups",
    r"elseif\{call\('EXISTS', busy, paused_groups\) > 0 => true": "it spares look-ups",
    r"if\{failed == 0 and .* => true\}|failed == 0 \{and => or\}": "what failed is delayed: the queue is not empty",
    r"if\{back == 0 => true\}": "what came back is delayed: the queue is not empty",
    r"'0', \{'(0' => '1|3' => '4)'\}|some and '-1' or \{'0' => ": "more is read, and not used",
    r"'LIMIT', '0', \{'1' => '2'\}|for i = 1, \{4 => 5\}|-i - \{1000 => 1001\}": "more is read, and not used",
    r"(ipairs\(|and )call\('Z(REV)?RANGE', (groups|ready), '0', .* \{- => \+\} 1": "more is read, and not used",
    r"over \{> => >=\} 0 and|if\{not some => true\}|#seen > \{0 => 1\}": "it is not used then, or the same once more",
    r"pop_longest: if( #chosen == \{0 => 1|\{#chosen == 0 => false)": "what is chosen is in both",
    r"pop_longest: elseif( #chosen \{< => <=|\{#chosen < .* => true)": "nothing more is chosen",
    # Lists that are never of one element, and what is never so.
    r"#(parked|deaths|notes|lengths|taken|ripe) > \{0 => 1\}": "they are pairs: there are two or none",
    r"bury: if #write\[3\] > \{0 => 1\}": "they are pairs: there are two or none",
    r"purge: if #members (> \{0 => 1\}|\{> => >=\} 0) and": "no lease has so many members",
    r"release: if\{#members == 0 => false\}": "its id is in no index either",
    # Equal values, and what is written as it is.
    r"tonumber\((score|due)\) \{< => <=\} tonumber\(asked": "of equals either",
    r"push: score, due = .*(\{< => <=\} 0|< \{0 => 1\}) and": "of equals either",
    r"if\{(not mark|before == 0|not fifo or place == 0) => true\}": "it is as it is written",
    r"'LIMIT', '0', ('100'\), 0, \{0 => 1\}|\{'100' => '101'\}\), 0, 0)": "each lease has a member",
    r"pop: retry = first and math\.max\(\{0 => 1\}": "what is due was promoted",
    r"audit: .*(\{'ZRANGE' => 'ZREVRANGE'\}, leases|, \{'200' => |total \{> => >=\} 0)": "all of them, or none",
    r"push: .*\* \{1000000000000 => 1000000000001\} \+": "places grow, and a thousand makes no difference",
    r"push: if\{not \(mark and fifo\) => true": "it is as it is written",
    r"audit: named = named .*(LLEN', key\) - \{1 => 2\}|or \{0 => 1\})": "half a member more or less",
    r"ack: local delayed, .* tokens = .*\{1 => 2\}": "whether there is one",
    # How a hash of many fields is made a table: it costs less, and does the same.
    r"if #values (> \{64 => |\{> => >=\} 64|> 64 \{and => or\})|\{#values > 64 .* => ": "it costs more or less",
    r"call\('HSET', key, values\[1\], values\[\{2 => |\{call\('HSET', key, values\[1\]": "it is written right after it",
    r"push: .*(\{1 => 2\}\] == 'HSET'|\{write\[1\] == 'HSET' => |write\[2\], write\[\{3)": "it costs more or less",
    # pop's promotion buries nobody.
    r"pop: .*(\(attempts\) \{>= => >\}|\{max_attempts .* => false|buried\[#|deaths\[#)": "max_attempts is 0",
    # Rates: what is known of the first grant spares look-ups; the search may be slower.
    r"longest = per \{> => >=\} longest": "it is the same number",
    r"acquire: .*(earliest = .*\{0 => 1\}, nil|longest (\{> => >=\} 0|> 0 => true))": "it has rates, of a ms or more",
    r"newest = #ARGV \{>= => >\} first_rate": "rates are pairs",
    r"if at and at (\{\+ => -\} per|\+ per - now (\{< => <=\}|< \{0))|if\{at and at .* => true": "it spares look-ups",
    r"if\{stale => true|retry, stale = cost, 0, \{false => true\}": "it spares look-ups",
    r"if free (\{< => <=\} 0|< \{0 => 1\}) then": "the first grant has to leave the span, and is found",
    r"math\.ceil\(\(low \+ high\) / \{2 => 1\}\)": "it finds the same grant in more steps",
    r"reserve: .*free <= granted (\{and => or\} free <|and free \{< => <=\}) cost": "one of one: nothing is missing",
    r"reserve: .*(stale = cost, \{0 => 1\}, false|first_rate, cost = .*, \{1 => 2\})": "one of one: nothing is missing",
    r"free == granted and retry or \{0 => 1\}": "times are of a ms at least",
    # The paths that a push takes.
    r"push: local plain = .*\(special \{and => or\}": "the longer path does the same",
    r"push: if ?(place \+ i \{- => \+\} low|\{place \+ i - low .* => true)": "the digits are made anew, the same",
    r"push: if ?(added \{< => <=\} count|\{added < count => true)": "what was added is told anew, the same",
    # In a buffer's reserve, redrive and stats.
    r"reserve: local time = first\[\{2 => 1\}\] and": "each entry has both",
    r"reserve: local group, .*, \{0 => 1\}, ''": "they are counted for a batch that comes back alone",
    r"reserve: for i = 0, most == 0 and -\{1 => 2\}": "no turn of the loop",
    r"(reserve|redrive): if length \{> => >=\} 0 and": "something was put back",
    r"buffer/reserve: (if\{tokens == 0 => false|\{tokens = .* => nothing)": "the wake-up comes at the end then",
    r"stats: if ?(scan == '0' \{and => or\}|\{scan == '0' and .* => true)": "no reply gives such a cursor",
    r"redrive: \{call\('LLEN', queue \.\. 'items:' \.\. group\) => nothing": "each group's list is looked at by itself",
    # What a full server, or a client that may not do everything, needs.
    r"call\('(ZREM|HDEL)', [\w. ']+, ''\).* => nothing": "see test_full_server: it frees first",
    r"call\('EXISTS', queue \.\. 'ended:' .* => nothing": "see tests/faults/test_partial_writes.py: it may be denied",
    # Keys that are looked at before, in another place.
    r"priority/reserve: \{call\('HLEN', rows\) => nothing": "it is looked at twice",
    r"drop_group: \{call\('HLEN', queue \.\. 'busy'\) => nothing": "it is looked at twice",
}

MUTANTS = {name: mutants(name, load(name).text.decode("ascii")) for name in names()}


def listed(mutant: Mutant) -> list[str]:
    """Return the patterns under which a mutant is listed."""
    return [pattern for pattern in EQUIVALENT if re.search(pattern, mutant.key)]


def cases(name: str) -> list[Case]:
    """Return a script's cases, those with large arguments last."""
    return sorted(conformance.read(FOLDER / f"{name}.json"), key=lambda case: '"repeat"' in str(case.steps))


def caught(client: redis.Redis, mutant: Mutant, among: list[Case]) -> bool:
    """Return whether one of the cases fails."""
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
    assert len(excused) < sum(map(len, MUTANTS.values())) / 12
