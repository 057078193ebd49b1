"""Headers, bodies and Python code agree; the rules of `lua/README.md` are kept; layers import only from lower ones."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

import redisq
import redisq.asyncio
from redisq import BYTES, InvalidArgument, Rate
from redisq.core.buffer import BufferCalls
from redisq.core.limiter import LimiterCalls
from redisq.core.priority import PriorityCalls
from redisq.core.scripts import Script, Slot, directory, load, names
from redisq.core.validate import MAX_SECONDS
from tests.scripts.calls import calls
from tools import async_to_sync, idioms, own_lines

SCRIPTS = [pytest.param(load(name), id=name) for name in names()]
KEY_TYPES = {"hash", "zset", "list", "set", "string", "none"}
ARGUMENT_TYPES = {"string", "bytes", "int", "enum", "ms", "ints", "rates", "pairs"}
ORDER = (
    *("meta", "groups", "since", "items", "ready", "leases", "held", "delayed", "dead", "batch", "lease", "again"),
    *("rows", "payloads", "busy", "paused", "paused_groups", "grants", "once", "ended", "wake", "guard"),
)
PLACES = {**{name: place for place, name in enumerate(ORDER)}, "index": ORDER.index("leases")}
FORBIDDEN = r"\b(cjson|cmsgpack|struct|bit|loadstring|dofile|require|x?pcall|error|assert|tostring|setmetatable|_G)\b"


def body(script: Script) -> str:
    return script.text.decode("ascii").split("\n\n", 1)[1]


def code(script: Script) -> str:
    """Return the body without comments."""
    return re.sub(r"--.*", "", body(script))


def noun(pattern: str) -> str:
    """Return the part of a key's pattern after the queue's prefix, up to its colon: `items` of `items:<group>`."""
    return pattern.removeprefix("{queue}:").split(":")[0].split()[0]


def patterns(script: Script) -> list[str]:
    """Return the patterns of the computed keys, in order."""
    return [pattern for line in script.computes for pattern in line.split(", ")]


# -- the header ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_header_parses_and_names_the_path(script: Script) -> None:
    """Every header line follows the grammar, and the title is the path."""
    assert script.header[0] == f"-- {script.name}: {script.summary}"
    assert script.summary
    assert script.header[1] == "--"
    line_of = re.compile(r"^-- (KEYS|ARGV|COMPUTES|REPLY|ERROR|REPLAY)\b|^-- {10,}\S")
    for line in script.header[2:]:
        assert line_of.match(line), line
    labels = [line[3:].split("[")[0].split()[0] for line in script.header[2:] if line[3:4] != " "]
    grouped = [label for i, label in enumerate(labels) if labels[i - 1 : i] != [label]]
    assert grouped == [label for label in ("KEYS", "ARGV", "COMPUTES", "REPLY", "ERROR", "REPLAY") if label in labels]
    assert len(script.clauses("REPLY")) == 1
    assert script.replay in {"once", "lease", "yes", "no"}
    for slot in script.keys:
        assert slot.type in KEY_TYPES, slot
        assert re.match(r"\{queue\}:[a-z_<>:]+(  |$)", slot.note), slot
        assert (slot.type == "none") == (slot.name == "guard"), slot
    for slot in script.args:
        assert slot.type in ARGUMENT_TYPES, slot
        assert bool(slot.fields) == (slot.type == "ints"), slot


@pytest.mark.parametrize("script", SCRIPTS)
def test_slots_are_numbered(script: Script) -> None:
    """KEYS and ARGV count from 1, and only the last argument may take all that follow."""
    for kind, slots in (("KEYS", script.keys), ("ARGV", script.args)):
        found = [re.match(rf"-- {kind}\[(\d+)(\+?)\]", line) for line in script.header]
        marks = [(int(match[1]), match[2] == "+") for match in found if match]
        assert marks == [(i + 1, slot.rest) for i, slot in enumerate(slots)]
        assert not any(rest for _, rest in marks[:-1])


def starts(line: str) -> list[int]:
    """Return where the columns of a header line begin, after its label; they are separated by two or more blanks."""
    behind = re.sub(r"^-- ([A-Z]+(\[\d+\+?\])?)?", lambda label: " " * len(label[0]), line)
    return [match.start() for match in re.finditer(r"\S+(?: \S+)*", behind)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_columns_are_aligned(script: Script) -> None:
    """Name, type, range and meaning are aligned; numbers that share an argument are indented by two."""
    lines = iter(script.header[2:])
    name, kind, pattern, meaning = starts(script.header[2])
    for slot in [*script.keys, *script.args]:
        found = starts(next(lines))
        assert found[:2] == [name, kind], slot
        assert found[2:] in ([pattern, meaning], [pattern], [meaning], []), slot
        for field in slot.fields:
            found = starts(next(lines))
            assert found in ([name + 2, kind + 2, meaning], [name + 2, kind + 2]), field
    label = ""
    for line in lines:
        label = line[3:].split(" ")[0] or label
        if label == "REPLY":  # the shapes of a reply may be long
            assert starts(line)[0] in ((name,) if line.startswith("-- R") else (name, name + 2, meaning)), line
        elif label in ("ERROR", "REPLAY"):
            assert starts(line) in ([name, meaning], [meaning]), line
        elif label == "COMPUTES":
            assert starts(line) == [name], line


@pytest.mark.parametrize("script", SCRIPTS)
def test_keys_are_in_the_same_order_everywhere(script: Script) -> None:
    """In all scripts, the declared as well as the computed ones."""
    for found in ([slot.name for slot in script.keys], [noun(pattern) for pattern in patterns(script)]):
        places = [PLACES[name] for name in found]
        assert places == sorted(set(places)), found


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_key_has_the_same_description_everywhere(script: Script) -> None:
    """The same type and pattern in all scripts."""
    for slot in script.keys:
        others = [other for name in names() for other in load(name).keys if other.name == slot.name]
        same = [other for other in others if noun(other.note) == noun(slot.note)]
        assert {other.type for other in same} == {slot.type}, slot
        assert slot.name in (noun(slot.note), "index"), slot


# -- header and body -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_slots_are_bound_to_locals_of_their_names(script: Script, kind: str) -> None:
    """One statement binds the declared slots, by name and in order; none is used by its number."""
    slots = script.keys if kind == "KEYS" else script.args
    named = [slot.name for slot in slots if not slot.rest]
    text = code(script)
    binding = re.search(rf"^local ([\w, ]+) = (?:unpack\({kind}(?:, 1, (\d+))?\)|{kind}\[1\])$", text, re.MULTILINE)
    assert binding, f"{kind} is not bound"
    bound = binding[1].split(", ")
    assert bound == [name for name in named if name != "guard"]
    assert not binding[2] or int(binding[2]) == len(named)
    rest = text.replace(binding[0], "", 1)
    by_number = [int(number) for number in re.findall(rf"{kind}\[(\d+)\]", rest)]
    assert all(number > len(named) for number in by_number), "a slot is used by number instead of by its name"
    if slots[-1:] and slots[-1].rest:
        assert re.search(rf"{kind}\[|unpack\({kind}", rest), "the rest slot is not used"


@pytest.mark.parametrize("script", SCRIPTS)
def test_keys_and_arguments_are_counted_first(script: Script) -> None:
    """The check of the arguments compares both with the header; only the mark may be read before it."""
    head = code(script).split("BADARG", 1)[0]
    assert f"#KEYS ~= {len(script.keys)}" in head
    assert "#ARGV" in head
    assert set(re.findall(r"\bcall\('(\w+)'", head)) <= {"HGET"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_packed_numbers_are_parsed_in_the_order_of_the_header(script: Script) -> None:
    """By one pattern with as many captures as fields, into locals of their names."""
    for slot in script.args:
        if not slot.fields:
            continue
        found = re.search(rf"local ([\w, ]+) =\s+string\.match\({slot.name} or '', '(.*)'\)", code(script))
        assert found, f"{slot.name} is not parsed"
        assert found[2].startswith("^")
        assert found[2].endswith("$")
        assert found[2].count("(") == len(slot.fields)
        taken = {key.name for key in script.keys}
        for names_of in re.findall(r"^local ([\w, ]+) = ", code(script).replace(found[0], ""), re.MULTILINE):
            taken.update(names_of.split(", "))
        for local, field in zip(found[1].split(", "), slot.fields, strict=True):
            assert local == field.name or field.name in taken or local.startswith(f"{field.name}_"), (local, field)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_number_has_a_range(script: Script) -> None:
    """Integers have a range, and a rest slot has a number of values; clients read both."""
    for slot in script.args:
        for one in (slot, *slot.fields):
            if one.type == "int" and not one.rest:
                assert re.match(r"\d+\.\.\d+(  |$)", one.note), one
            if (one.type == "int") != one.rest:
                assert one.low is not None, one
                assert script.limit(one.name) == (one.low, one.high)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_slot_is_used(script: Script) -> None:
    """Outside of the statement that binds it."""
    for slot in [*script.keys, *script.args]:
        uses = len(re.findall(rf"\b{slot.name}\b", re.sub(r"'[^']*'", "''", code(script))))
        assert uses >= 2 or slot.rest or slot.name == "guard", slot


@pytest.mark.parametrize("script", SCRIPTS)
def test_error_codes_are_declared(script: Script) -> None:
    """The codes of errors in the body are those of the header."""
    refused = set(re.findall(r"error_reply\('([A-Z]+) ", code(script))) | set(
        re.findall(r"'([A-Z]{6,})'", code(script))
    )
    assert refused & {"BADARG", "LAYOUT", "WRONGORDER", "LEASELOST"} == set(script.errors)


COMPUTED = re.compile(r"(?:queue|string\.sub\(meta, 1, -5\)) \.\. '(\w+)(:?)'")


def computed(script: Script) -> set[str]:
    """Return the nouns of the keys that the body computes."""
    text = code(script)
    found = {match[1] for match in COMPUTED.finditer(text)}
    for loop in re.finditer(r"for (?:_, )?key(?:, \w+)? in i?pairs\(\{(.*?)\}\) do\n(.*)\n", text):
        if "queue .. key" in loop[2]:
            names_of = re.findall(r"(\w+) = '", loop[1]) if " = " in loop[1] else re.findall(r"'(\w+)'", loop[1])
            found.update(names_of)
    for kind in re.findall(r"(?:doom\(.*'|list_length\(queue \.\. ')(\w+):'", text):
        found.add(kind)
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_computed_keys_are_declared(script: Script) -> None:
    """COMPUTES names every key that the body computes and that is not a slot, and no other."""
    slots = {noun(slot.note) for slot in script.keys if "<" not in slot.note}
    named = {slot.note.split()[0] for slot in script.keys}
    made = computed(script)
    declared = {noun(pattern) for pattern in patterns(script)}
    whole = {noun(slot.note) for slot in script.keys}
    assert made - whole <= declared, "not declared"
    assert declared <= made, "declared, but not computed"
    assert not declared & slots, "both a slot and computed"
    assert named.isdisjoint(set(patterns(script)) - {p for p in patterns(script) if "<" in p})


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_with_computed_keys_have_the_guard(script: Script) -> None:
    """Or a key by which they return at once, and they tell Dragonfly first."""
    declared = {slot.name for slot in script.keys}
    assert ("guard" in declared) == (bool(script.computes) and not declared & {"once", "ended"})
    assert bool(script.computes) == script.text.startswith(b"--!df flags=allow-undeclared-keys\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_repeatable_calls_have_an_id(script: Script) -> None:
    """Exactly the scripts with a key for remembered answers declare REPLAY once or lease."""
    remembers = {slot.name for slot in script.keys} & {"once", "ended"}
    expected = {"once": {"once"}, "lease": {"ended"}, "yes": set(), "no": set()}
    assert remembers == expected[script.replay]


# -- rules of lua/README.md


@pytest.mark.parametrize("script", SCRIPTS)
def test_rules(script: Script) -> None:
    """Only features that work the same on every server; `lua/README.md` gives the reason for each rule."""
    text = script.text.decode("ascii")
    assert not text.startswith("#!")
    assert text.endswith("\n")
    bare = re.sub(r"'(?:\\.|[^'\\])*'", "''", code(script))
    assert not re.search(FORBIDDEN, re.sub(r"\bredis\.pcall\(''", "count(''", bare))
    assert not re.search(r"^\s*function \w+\s*\(", bare, re.MULTILINE), "a global function"
    assert not re.search(r"\b(?:redis\.log|redis\.sha1hex|math\.random)\b", bare)
    for call in re.findall(r"\bredis\.pcall\(.*", code(script)):  # the only ones that may fail
        assert re.match(
            r"redis\.pcall\('(HINCRBY', meta, '(done|failed|buried|trimmed)',|LPOP', queue \.\. 'wake'\)\s*$)", call
        ), call
    assert "layout" not in {slot.name for slot in script.keys}


@pytest.mark.parametrize("script", SCRIPTS)
def test_numbers_are_passed_as_text(script: Script) -> None:
    """Formatting a number costs Redis more than most commands: '0', not 0."""
    for call in re.findall(r"\b(?:redis\.p?)?call\(([^()]*(?:\([^()]*\)[^()]*)*)\)", code(script)):
        bare = re.sub(r"\([^()]*\)", "", re.sub(r"'[^']*'", "''", call))
        assert not re.search(r"(?:^|, )-?\d+(?=,|$)", bare), call


def test_idioms_are_copied_exactly() -> None:
    """Every marked block has the text of `lua/idioms`, and every idiom there is used."""
    used: Counter[str] = Counter()
    for path in idioms.scripts():
        text = path.read_text(encoding="ascii")
        assert idioms.paste(text) == text, f"{path.name}: python -m tools.idioms"
        used.update(set(re.findall(r"^ *-- idiom: ([a-z ]+)$", text, re.MULTILINE)))
        assert text.count("-- idiom: ") == len(re.findall(r"^ *-- end$", text, re.MULTILINE))
    assert {name.replace(" ", "_") for name in used} == {path.stem for path in (idioms.LUA / "idioms").glob("*.inc")}


def test_idioms_are_short() -> None:
    """25 lines at most, and with more than ten lines, in four scripts at most."""
    scripts = [path.read_text(encoding="ascii") for path in idioms.scripts()]
    for path in sorted((idioms.LUA / "idioms").glob("*.inc")):
        lines = path.read_text(encoding="ascii").count("\n")
        users = sum(f"-- idiom: {path.stem.replace('_', ' ')}\n" in text for text in scripts)
        assert lines <= 25, path.stem
        assert users <= 4 or lines <= 10, path.stem
        assert users > 1, f"{path.stem} is used by one script only"


LONGER = {
    "buffer/audit": 140,
    "buffer/pop": 55,
    "buffer/reserve": 130,
    "priority/audit": 160,
    "priority/pop": 55,
    "priority/push": 160,
}


@pytest.mark.parametrize("lines", own_lines.counted(), ids=lambda lines: lines.script)
def test_scripts_are_short(lines: own_lines.Lines) -> None:
    """A script's own code is short enough to be read in one go."""
    assert lines.own <= LONGER.get(lines.script, 100)


def test_all_scripts_together_are_short() -> None:
    assert sum(lines.own for lines in own_lines.counted()) <= 1700


def test_own_lines_exclude_shared_code() -> None:
    """The header, idioms, comments and blank lines."""
    text = "-- a/b: c\n--\n\nlocal a = 1\n-- why\n\nif a then\n  -- idiom: x y\n  f()\n  g()\n  -- end\nend -- last\n"
    assert own_lines.count("a/b", text) == own_lines.Lines("a/b", 3, 2, 2, 12)


def test_the_table_of_lines_is_up_to_date() -> None:
    """`python -m tools.own_lines --write` would write the same into `lua/README.md`."""
    text = own_lines.README.read_text(encoding="utf-8")
    assert own_lines.marked(text) == text


# -- header and Python -----------------------------------------------------------------------------------------------


def slots_filled(slots: list[Slot], given: int) -> bool:
    """Return whether this many arguments fit the slots: the last may take any number, or be left out."""
    last = slots[-1] if slots else None
    if last and last.rest:
        return given >= len(slots) - 1
    return given == len(slots) or (given == len(slots) - 1 and bool(last) and (last.low, last.high) == (0, 1))  # type: ignore[union-attr]


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_passes_what_the_header_declares(script: Script) -> None:
    """Every script is called with the keys and arguments that it declares, of the declared patterns."""
    call = calls()[script.name]
    assert len(call.keys) == len(script.keys)
    assert slots_filled(script.args, len(call.args))
    for key, slot in zip(call.keys, script.keys, strict=True):
        pattern = re.escape(slot.note.split()[0]).replace(r"\{queue\}", r"redisq:\{q\}")
        assert re.fullmatch(re.sub(r"<\w+>", ".+", pattern), key.decode()), (key, slot)
    for value, slot in zip(call.args, script.args, strict=False):
        if slot.fields:
            assert not isinstance(value, int)
            assert len(value.split()) == len(slot.fields)


BUFFER = BufferCalls("q", codec=BYTES)
QUEUE = PriorityCalls("q", codec=BYTES)
LIMITER = LimiterCalls("q", (Rate(1, 1),))
NAMES = [str(i) for i in range(1001)]

# What Python accepts where the header states a range: the first number is the lowest that is not None.
RANGES: list[tuple[str, str, Callable[[int], Any]]] = [
    ("buffer/push", "item", lambda n: BUFFER.push([b""] * n)),
    ("buffer/pop", "size", lambda n: BUFFER.pop("g", n)),
    ("buffer/pop_longest", "count", lambda n: BUFFER.pop_longest(n, 1)),
    ("buffer/pop_longest", "size", lambda n: BUFFER.pop_longest(1, n)),
    ("buffer/reserve", "size", lambda n: BUFFER.reserve(n)),
    ("buffer/reserve", "max_bytes", lambda n: BUFFER.reserve(max_bytes=n or None)),
    ("buffer/reserve", "min_size", lambda n: BufferCalls("q", min_size=n)),
    ("buffer/reserve", "max_attempts", lambda n: BufferCalls("q", max_attempts=n or None)),
    ("buffer/reserve", "max_dead", lambda n: BufferCalls("q", max_dead=n or None)),
    ("buffer/peek", "start", lambda n: next(BUFFER.peek("g", 1, n))),
    ("buffer/discard", "id", lambda n: BUFFER.discard(NAMES[:n])),
    ("buffer/reserve", "rates", lambda n: BufferCalls("q", rates=[Rate(1, 1)] * n)),
    ("priority/pop", "count", lambda n: QUEUE.pop_many(n)),
    ("priority/reserve", "size", lambda n: QUEUE.reserve(n)),
    ("priority/reserve", "max_bytes", lambda n: QUEUE.reserve(max_bytes=n or None)),
    ("priority/reserve", "max_attempts", lambda n: PriorityCalls("q", max_attempts=n or None)),
    ("priority/reserve", "max_dead", lambda n: PriorityCalls("q", max_dead=n or None)),
    ("priority/redrive", "member", lambda n: QUEUE.redrive([b""] * n)),
    ("priority/discard", "member", lambda n: QUEUE.discard([b""] * n)),
    ("priority/remove", "member", lambda n: QUEUE.remove([b""] * n)),
    ("priority/reserve", "rates", lambda n: PriorityCalls("q", rates=[Rate(1, 1)] * n)),
    ("limit/acquire", "cost", lambda n: LIMITER.acquire(n)),
    ("limit/acquire", "rates", lambda n: LimiterCalls("q", (Rate(1, 1),) * n)),
]


@pytest.mark.parametrize(("name", "argument", "call"), RANGES, ids=[f"{name} {what}" for name, what, _ in RANGES])
def test_python_accepts_the_range_of_the_header(name: str, argument: str, call: Callable[[int], Any]) -> None:
    """Both bounds are accepted, and nothing beyond them."""
    low, high = load(name).limit(argument)
    call(low)
    call(high)
    with pytest.raises(InvalidArgument):
        call(high + 1)
    if low > 0:
        with pytest.raises(InvalidArgument):
            call(low - 1)


@pytest.mark.parametrize("name", names())
def test_python_asks_for_whole_pages(name: str) -> None:
    """Calls in pages use the largest page that the header allows."""
    script = load(name)
    places = [i for i, slot in enumerate(script.args) if slot.name == "limit"]
    for place in places:
        long: Any = {
            "buffer/groups": lambda: next(BUFFER.groups(10_000)),
            "buffer/batches": lambda: next(BUFFER.dead(10_000)),
            "priority/batches": lambda: next(QUEUE.leased(10_000)),
            "priority/members": lambda: next(QUEUE.peek(10_000)),
        }
        call = long[name]() if name in long else calls()[name]
        assert call.args[place] == script.limit("limit")[1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_passes_no_time_that_a_script_refuses(script: Script) -> None:
    """The longest spans that Python accepts are within the header's ranges."""
    for slot in script.args:
        for one in (slot, *slot.fields):
            if one.name in ("lease", "delay", "max_wait", "duration"):
                assert script.limit(one.name)[1] // 1000 == MAX_SECONDS
            elif one.name == "window":
                assert script.limit("window")[1] >= 604_800_000


def test_a_long_push_is_split_into_calls_within_the_header_range() -> None:
    """Members and items beyond the range of one call are sent in the next one."""

    def first(flow: Any) -> int:
        return len(next(flow).args)

    most = load("priority/push").limit("item")[1]
    assert first(QUEUE.push_many((b"%d" % i, 0) for i in range(most + 1))) == 4 + 2 * most
    assert first(BUFFER.push_many([b""] * 20_000)) == 4 + load("buffer/push").limit("item")[1]
    assert first(BUFFER.redrive(NAMES[:1000])) == 2 + load("buffer/redrive").limit("id")[1]


def test_the_package_finds_the_scripts_of_the_checkout() -> None:
    """An editable install reads `lua/` beside the package."""
    assert directory() == Path(redisq.__file__).parent.parent / "lua"


def test_the_blocking_classes_are_generated_from_the_asyncio_ones() -> None:
    """`python -m tools.async_to_sync` would write the same."""
    assert async_to_sync.main(["--check"]) == 0


# What each layer may import from the package.
LAYERS = {
    "core": {"core"},
    "blocking": {"blocking", "core"},
    "asyncio": {"asyncio", "core"},
    "embedded": {"core", "embedded"},
    "vendoring": {"__version__", "core"},
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_only_from_lower_ones(layer: str) -> None:
    package = Path(redisq.__file__).parent
    files = list((package / layer).rglob("*.py")) or [package / f"{layer}.py"]
    for path in files:
        here = ["redisq", *path.relative_to(package).with_suffix("").parts]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = here[: -node.level] + (node.module.split(".") if node.module else [])
                parts = target[1:2] or [alias.name for alias in node.names]
                assert set(parts) <= LAYERS[layer], f"{path}: {parts}"
    if layer == "core":
        assert not any(re.search(r"^\s*(from|import) redis\b", path.read_text(), re.MULTILINE) for path in files)


def test_the_package_imports_nothing_of_the_checkout() -> None:
    """Benchmarks, tests and tools are not in the wheel; imports within the package are relative."""
    for path in Path(redisq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module or ""]
            else:
                continue
            roots = {name.partition(".")[0] for name in found}
            assert not roots & {"benchmarks", "redisq", "tests", "tools"}, f"{path}: {found}"


@pytest.mark.parametrize("name", [name for name in redisq.asyncio.__all__ if name != "Client"])
def test_blocking_and_asyncio_classes_have_the_same_interface(name: str) -> None:
    """The same methods, parameters, defaults, types and docstrings, except for the awaiting."""
    blocking, awaited = getattr(redisq, name), getattr(redisq.asyncio, name)
    if name == "Worker":  # threads and tasks end differently, which is documented; the settings are the same
        assert inspect.signature(blocking).parameters.keys() == inspect.signature(awaited).parameters.keys()
        return
    assert blocking.__doc__.split() == async_to_sync.replaced(awaited.__doc__).split()

    def public(cls: type) -> dict[str, object]:
        members = inspect.getmembers(cls)
        return {key: member for key, member in members if not key.startswith("_") and key not in vars(redisq.BatchData)}

    assert public(blocking).keys() == public(awaited).keys()
    for key, method in public(awaited).items():
        twin = public(blocking)[key]
        assert inspect.getdoc(method) == inspect.getdoc(twin)
        asynchronous, plain = inspect.signature(method), inspect.signature(twin)  # type: ignore[arg-type]
        if str(asynchronous.return_annotation).startswith("AsyncGenerator["):
            assert asynchronous.parameters == plain.parameters
            assert str(plain.return_annotation).startswith("Generator["), key
        else:
            assert asynchronous == plain
            assert inspect.iscoroutinefunction(method), key


def annotated(public: Any) -> Iterator[tuple[str, str, str]]:
    """Yield each annotated object of a class or function, its module, and the annotation as written."""
    if not inspect.isclass(public):
        yield from ((public.__name__, public.__module__, str(one)) for one in public.__annotations__.values())
        return
    for cls in public.__mro__:
        if not cls.__module__.startswith("redisq"):
            continue
        for name, one in inspect.get_annotations(cls).items():
            if not name.startswith("_"):
                yield f"{public.__name__}.{name}", cls.__module__, str(getattr(one, "__forward_arg__", one))
        for name, member in vars(cls).items():
            if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                for one in member.__annotations__.values():
                    yield f"{public.__name__}.{name}", cls.__module__, str(one)


@cache
def own_names(module: str) -> set[str]:
    """Return the names that a module defines, or imports from the package."""
    found = set()
    for node in ast.walk(ast.parse(Path(str(sys.modules[module].__file__)).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("package", [redisq, redisq.asyncio], ids=lambda package: str(package.__name__))
def test_the_types_of_public_signatures_are_exported(package: ModuleType) -> None:
    """Every type of redisq in a public signature or field can be imported from `redisq` or `redisq.asyncio`."""
    exported = {name: getattr(one, name) for one in (redisq, package) for name in one.__all__}
    for name in package.__all__:
        public = getattr(package, name)
        if not inspect.isclass(public) and not inspect.isfunction(public):
            continue
        for where, module, annotation in annotated(public):
            for node in ast.walk(ast.parse(annotation, mode="eval")):
                if isinstance(node, ast.Name) and node.id in own_names(module):
                    meant = vars(sys.modules[module]).get(node.id, exported.get(node.id))
                    is_exported = node.id in exported and exported[node.id] == meant
                    assert is_exported or isinstance(meant, TypeVar), f"{where}: {node.id}"


def test_public_names_have_docstrings() -> None:
    """Every exported name and every public method."""
    for name in redisq.__all__:
        value = getattr(redisq, name)
        if inspect.isclass(value):
            assert value.__doc__, name
            for key, member in inspect.getmembers(value, inspect.isfunction):
                if not key.startswith("_"):
                    assert inspect.getdoc(member), f"{name}.{key}"
