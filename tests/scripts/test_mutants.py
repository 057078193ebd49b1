"""The conformance cases detect broken scripts: each mutant fails at least one of them."""

from __future__ import annotations

import os
import re

import pytest
import redis

from redisq.core.scripts import load, names
from tests.scripts import conformance
from tests.scripts.conformance import FOLDER, Case, Failure
from tests.scripts.mutants import Mutant, mutants, sample
from tests.waiting import until

# A few of each script, always the same ones; all of them with REDISQ_MUTANTS=all, in minutes.
EACH = 8

# Mutants without an effect that a caller could see: a pattern for "script: line {before => after}", and the reason.
EQUIVALENT = {
    # Effects that cannot be observed.
    r"time\[\{2 => 1\}\], -6|\{- => nothing\}6, -4": "less than two seconds; the clock is compared within ten",
    r"PEXPIRE', grants, .*\{1000 => ": "TTLs are compared within ten seconds",
    r"window\) > \{0 => 1\}|acquire: if longest > \{0 => 1\}": "a key for 1 ms is gone before it can be read",
    r"\{'LPUSH' => 'RPUSH'\}, (queue \.\. 'wake'|wake)|pcall\(\{'LPOP' => 'RPOP'\}": "there is at most one wake-up",
    r"unpack\(\w+, 1, \{(1 => 2|2 => 3|3 => 4|4 => 5|5 => 6)\}": "only the first values are assigned",
    r"buffer/pop: .*\{'ZRANK' => 'ZREVRANK'\}": "only its existence counts",
    # Bounds that another check makes superfluous.
    r"#(limit|count|size) > \{(3 => 4|4 => 5)\}": "the range is checked as well",
    r"#ARGV < \{(3 => 2|4 => 3|5 => 4)\} or #ARGV > \d+ or #ARGV %": "this would be an incomplete pair",
    r"#ARGV > \{(102 => 103|104 => 105|105 => 106|1003 => 1004)\} or #ARGV %": "this would be an incomplete pair",
    r"push: (if .*#ARGV < \{4 => 3\}$|.*#ARGV - \{4 => 5\} > )": "this would be an incomplete pair",
    r"ack: .*failed > \{3000 => 3001\}": "no batch has so many items, so one of the places does not exist",
    r"ack: .*or -\{1 => 2\}\) \+ 1\]": "that place does not exist either",
    r"ack: local back, last = .* -\{1 => 2\}": "places have no sign",
    r"ack: local odd = .* \{5 => 4\}\)": "the time consists of digits",
    # Look-ups that are only an optimization, and values that are read but not used.
    r"local special = .*EXISTS', .*\) \{> => >=\} 0|if ?\{special => true": "it spares look-ups",
    r"(if|or) call\('EXISTS', (busy(, paused_groups)?|paused, queue .*)\) \{> => >=\} 0": "it spares look-ups",
    r"if\{call\('EXISTS', paused, queue .* => true": "it spares look-ups",
    r"(failed|failures|due) \{> => >=\} 0 (or|and string)|reserve: .*#due \{> => >=\} 0 and": "it spares look-ups",
    r"local (some_busy|unusual) = .*\{> => >=\} 0|if\{some_busy => true": "it spares look-ups",
    r"local special = unusual \{and => or|push: if\{text ~= last => true": "it spares look-ups",
    r"#places \{> => >=\} 0": "only an index can have a batch without a list",
    r"if\{(failed|due) > 0 or .* => true\}|ZCOUNT', delayed, '-inf', now\) (> 0 => true|\{> => )": "it spares look-ups",
    r"elseif\{call\('EXISTS', busy, paused_groups\) > 0 => true": "it spares look-ups",
    r"if\{failed == 0 and .* => true\}|failed == 0 \{and => or\}": "failed items are delayed: it is not empty",
    r"if\{back == 0 => true\}": "returned items are delayed: it is not empty",
    r"'0', \{'(0' => '1|3' => '4)'\}|some and '-1' or \{'0' => ": "more is read than used",
    r"'LIMIT', '0', \{'1' => '2'\}|for i = 1, \{4 => 5\}|i \+ \{999 => 1000\}": "more is read than used",
    r"(ipairs\(|and )call\('Z(REV)?RANGE', (groups|ready), '0', .* \{- => \+\} 1": "more is read than used",
    r"over \{> => >=\} 0 and|if\{not some => true\}|#seen > \{0 => 1\}": "it is not used then, or is the same",
    r"pop_longest: if( #chosen == \{0 => 1|\{#chosen == 0 => false)": "the chosen ones are in both",
    r"pop_longest: elseif( #chosen \{< => <=|\{#chosen < .* => true)": "nothing else is chosen",
    r"for i = 1, #list (\{/ => \*\} 2|/ \{2 => 1\})": "beyond a list's end there is nothing",
    # Lists that never have one element, and conditions that never hold.
    r"#(parked|deaths|notes|lengths|taken|ripe) > \{0 => 1\}": "the list has pairs, so it has two elements or none",
    r"bury: if #write\[3\] > \{0 => 1\}": "the list has pairs, so it has two elements or none",
    r"purge: if #members (> \{0 => 1\}|\{> => >=\} 0) and": "no lease has so many members",
    r"release: if\{#members == 0 => false\}": "its id is in no index, either",
    # Equal values, and values that are written as they are.
    r"tonumber\((score|due)\) \{< => <=\} tonumber\(asked": "of equals either",
    r"push: score, due = .*(\{< => <=\} 0|< \{0 => 1\}) and": "of equals either",
    r"if\{(not mark|before == 0|not fifo or place == 0) => true\}": "the written value is the same",
    r"'LIMIT', '0', ('100'\), 0, \{0 => 1\}|\{'100' => '101'\}\), 0, 0)": "each lease has a member",
    r"pop: retry = first and math\.max\(\{0 => 1\}": "due members have been promoted",
    r"audit: .*(\{'ZRANGE' => 'ZREVRANGE'\}, leases|, \{'200' => |total \{> => >=\} 0)": "all or none of them",
    r"push: .*\* \{1000000000000 => 1000000000001\} \+": "only the order of places counts",
    r"push: if\{not \(mark and fifo\) => true": "the written value is the same",
    r"audit: named = named .*(LLEN', key\) - \{1 => 2\}|or \{0 => 1\})": "off by half a member",
    r"ack: local delayed, .* tokens = .*\{1 => 2\}": "only its existence counts",
    # How a hash with many fields is converted to a table: cheaper, with the same result.
    r"if #values (> \{64 => |\{> => >=\} 64|> 64 \{and => or\})|\{#values > 64 .* => ": "only the cost differs",
    r"call\('HSET', key, values\[1\], values\[\{2 => |\{call\('HSET', key, values\[1\]": "it is written again",
    r"push: .*(\{1 => 2\}\] == 'HSET'|\{write\[1\] == 'HSET' => |write\[2\], write\[\{3)": "only the cost differs",
    # The promotion in pop does not bury.
    r"pop: .*(\(attempts\) \{>= => >\}|\{max_attempts .* => false|buried\[#|deaths\[#)": "max_attempts is 0",
    # Rates: the first grant saves look-ups; the search may be slower.
    r"longest = per \{> => >=\} longest": "the numbers are equal",
    r"acquire: .*(earliest = .*\{0 => 1\}, nil|longest (\{> => >=\} 0|> 0 => true))": "rates are of 1 ms or more",
    r"newest = #ARGV \{>= => >\} first_rate": "rates are pairs",
    r"if at and at (\{\+ => -\} per|\+ per - now (\{< => <=\}|< \{0))|if\{at and at .* => true": "it spares look-ups",
    r"if\{stale => true|retry, stale = cost, 0, \{false => true\}": "it spares look-ups",
    r"if free (\{< => <=\} 0|< \{0 => 1\}) then": "the first grant has to leave the span, and is found anyway",
    r"math\.ceil\(\(low \+ high\) / \{2 => 1\}\)": "it finds the same grant in more steps",
    r"reserve: .*free <= granted (\{and => or\} free <|and free \{< => <=\}) cost": "the cost is one",
    r"reserve: .*(stale = cost, \{0 => 1\}, false|first_rate, cost = .*, \{1 => 2\})": "the cost is one",
    r"free == granted and retry or \{0 => 1\}": "times are at least 1 ms",
    # The different paths of a push.
    r"push: local plain = .*\(special \{and => or\}": "the longer path has the same result",
    r"push: if ?(nth \{- => \+\} low|\{nth - low .* => true)": "the digits are the same",
    r"push: if ?(added \{< => <=\} count|\{added < count => true)": "the result is the same",
    # reserve, redrive and stats of a buffer.
    r"reserve: local time = first\[\{2 => 1\}\] and": "each entry has both values",
    r"reserve: local group, .*, \{0 => 1\}, ''": "attempts only count for a batch that comes back",
    r"reserve: (.* some, first|if\{i == read =|\{?first, read =|some = .* read )": "more is read than used",
    r"reserve: for i = 0, items and take - 1 or -\{1 => 2\}": "the loop is not entered",
    r"reserve: if\{again => true": "a group's entries are written anew",
    r"(reserve|redrive): if length \{> => >=\} 0 and": "the list has the items that were put back",
    r"buffer/reserve: (if\{tokens == 0 => false|\{tokens = .* => nothing)": "the wake-up is sent at the end instead",
    r"stats: if ?(scan == '0' \{and => or\}|\{scan == '0' and .* => true)": "no reply has such a cursor",
    r"redrive: \{call\('LLEN', queue \.\. 'items:' \.\. group\) => nothing": "each group's list is read anyway",
    # Needed on a full server, or for a client without all permissions.
    r"call\('(ZREM|HDEL)', [\w. ']+, ''\).* => nothing": "see test_full_server.py: it frees memory first",
    r"call\('EXISTS', queue \.\. 'ended:' .* => nothing": "see tests/faults/test_partial_writes.py: it may be denied",
    # Keys that are checked before, in another place.
    r"priority/reserve: \{call\('HLEN', rows\) => nothing": "it is checked twice",
    r"drop_group: \{call\('HLEN', queue \.\. 'busy'\) => nothing": "it is checked twice",
}

MUTANTS = {name: mutants(name, load(name).text.decode("ascii")) for name in names()}


def reasons_for(mutant: Mutant) -> list[str]:
    """Return the patterns that cover a mutant."""
    return [pattern for pattern in EQUIVALENT if re.search(pattern, mutant.key)]


def cases(name: str) -> list[Case]:
    """Return a script's cases, those with large arguments last."""
    return sorted(conformance.read(FOLDER / f"{name}.json"), key=lambda case: '"repeat"' in str(case.steps))


def detected(client: redis.Redis, mutant: Mutant, among: list[Case]) -> bool:
    """Return whether one of the cases fails."""
    for case in among:
        try:
            conformance.run(client, case, lambda name: mutant.text if name == mutant.script else load(name).text)
        except Failure:
            stop_endless(client)
            return True
    return False


def stop_endless(client: redis.Redis) -> None:
    """End a script that a mutant made endless: it was detected when the server called itself busy."""
    try:
        client.script_kill()
    except redis.ResponseError as error:
        if "NOTBUSY" in str(error):
            return
        raise

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ResponseError:
            return False

    until(answers, "the script has ended")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", names())
def test_mutants_are_detected(name: str) -> None:
    """All except those that are listed with a reason."""
    every = [mutant for mutant in MUTANTS[name] if not reasons_for(mutant)]
    chosen = every if os.environ.get("REDISQ_MUTANTS") == "all" else sample(every, EACH)
    assert len(chosen) >= 5
    among = cases(name)
    with conformance.fastest() as client:
        survived = [str(mutant) for mutant in chosen if not detected(client, mutant, among)]
    assert not survived, "\n".join(survived)


def test_equivalent_mutants_exist_and_are_few() -> None:
    """Every pattern covers a mutant, and few mutants are covered."""
    excused = [reasons_for(mutant) for every in MUTANTS.values() for mutant in every if reasons_for(mutant)]
    assert {pattern for patterns in excused for pattern in patterns} == set(EQUIVALENT)
    assert len(excused) < sum(map(len, MUTANTS.values())) / 12
