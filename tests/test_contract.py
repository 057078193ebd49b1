"""Headers, bodies and Python agree; the house rules of `lua/README.md` hold; layers import downwards only."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest

import redisq
import redisq.asyncio
from redisq.scripts import Script, Slot, directory, load, names

from .calls import calls

SCRIPTS = [pytest.param(load(name), id=name) for name in names()]
SLOT_TYPES = {"zset", "list", "hash", "string", "none", "int", "enum", "ms", "bytes", "pairs"}
FORBIDDEN = r"\b(cjson|cmsgpack|struct|bit|loadstring|dofile|require|x?pcall|error|assert|tostring|setmetatable|_G)\b"


def body(script: Script) -> str:
    return script.text.decode("ascii").split("\n\n", 1)[1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_header_names_the_path_and_parses(script: Script) -> None:
    """Every header line is of the grammar, and the title is the path."""
    assert script.header[0] == f"-- {script.name}: {script.summary}"
    assert script.summary
    assert script.header[1] == "--"
    line_of = re.compile(r"^-- (KEYS|ARGV|COMPUTES|REPLY|ERROR|REPLAY)\b|^-- {10,}\S")
    kinds = [line_of.match(line) for line in script.header[2:]]
    assert all(kinds), script.header
    assert len(script.clauses("REPLY")) == 1
    assert script.replay in {"once", "lease", "yes", "no"}
    for slot in [*script.keys, *script.args]:
        assert slot.type in SLOT_TYPES, slot
    for slot in script.keys:
        assert slot.note.startswith("{queue}:"), slot


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_slots_are_bound_to_locals_of_their_names(script: Script, kind: str) -> None:
    """The statement that binds a kind of slot binds exactly the declared ones, by name, in order."""
    slots = script.keys if kind == "KEYS" else script.args
    named = [slot for slot in slots if not slot.rest]
    assert [slot.rest for slot in slots] == [False] * len(named) + [True] * (len(slots) - len(named))
    binding = re.compile(rf"^local ([\w, ]+) = ({kind}\[\d+\](?:, {kind}\[\d+\])*)$", re.MULTILINE)
    bound = binding.findall(body(script))
    assert [name for names, _ in bound for name in names.split(", ")] == [slot.name for slot in named]
    taken = [slot for _, slots in bound for slot in slots.split(", ")]
    assert taken == [f"{kind}[{i}]" for i in range(1, len(named) + 1)]
    rest = binding.sub("", body(script))
    assert not re.search(rf"{kind}\[\d+\]", rest), "a slot is used by number instead of by its name"
    if len(slots) > len(named):
        assert re.search(rf"{kind}\[|unpack\({kind}", rest), "the slot that takes the rest is not used"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_slot_and_error_is_used_and_declared(script: Script) -> None:
    """No slot is left over, and the codes that the body refuses with are those of the header."""
    for slot in [*script.keys, *script.args]:
        uses = len(re.findall(rf"\b{slot.name}\b", body(script)))
        assert uses >= 2 or slot.rest or slot.name == "guard" or "KEYS[i]" in body(script), slot
    assert set(re.findall(r"error_reply\('([A-Z]+) ", body(script))) == set(script.errors)


@pytest.mark.parametrize("script", SCRIPTS)
def test_house_rules(script: Script) -> None:
    """Keep to what reads the same on every server: see `lua/README.md` for the reason of each."""
    text = script.text.decode("ascii")
    assert not text.startswith("#!")
    assert text.endswith("\n")
    code = re.sub(r"--.*|'(?:\\.|[^'\\])*'", "", body(script))
    assert not re.search(FORBIDDEN, code)
    assert not re.search(r"^\s*function \w+\s*\(", code, re.MULTILINE), "a global function"
    assert not re.search(r"\b(?:redis\.pcall|redis\.log|redis\.sha1hex|math\.random)\b", code)


@pytest.mark.parametrize("script", SCRIPTS)
def test_computed_keys_stand_under_the_guard(script: Script) -> None:
    """A script that computes a key declares the guard, and tells Dragonfly on its first line."""
    guarded = any(slot.note.startswith("{queue}:guard") for slot in script.keys)
    assert guarded or not script.computes
    assert bool(script.computes) == script.text.startswith(b"--!df flags=allow-undeclared-keys\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_sent_twice_has_an_id(script: Script) -> None:
    """REPLAY once or lease is declared by exactly the scripts that have a key to remember by."""
    remembers = {slot.note.split()[0] for slot in script.keys} & {
        "{queue}:once:<id>",
        "{queue}:ended:<id>",
        "{queue}:lease:<id>",
    }
    assert bool(remembers) == (script.replay in {"once", "lease"}) or script.name == "priority/extend"


def test_idioms_are_copied_to_the_letter() -> None:
    """An idiom is the same bytes wherever it stands."""
    copies: dict[str, set[str]] = defaultdict(set)
    for name in names():
        for idiom, block in re.findall(r"-- idiom: (\w+)\n(.*?)-- end\n", load(name).text.decode(), re.DOTALL):
            copies[idiom].add(block)
    assert copies
    assert {idiom: len(blocks) for idiom, blocks in copies.items()} == dict.fromkeys(copies, 1)


def slots_filled(slots: list[Slot], given: int) -> bool:
    return given >= len(slots) - 1 if slots and slots[-1].rest else given == len(slots)


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_passes_what_the_header_declares(script: Script) -> None:
    """Every script is called by the Python, with the keys and arguments that it declares, of the declared patterns."""
    op = calls()[script.name]
    assert len(op.keys) == len(script.keys)
    assert slots_filled(script.args, len(op.args))
    for key, slot in zip(op.keys, script.keys, strict=True):
        pattern = re.escape(slot.note.split()[0]).replace(r"\{queue\}", r"redisq:\{q\}")
        assert re.fullmatch(re.sub(r"<\w+>", ".+", pattern), key.decode()), (key, slot)


def test_the_package_finds_the_scripts_of_the_checkout() -> None:
    """An editable install reads `lua/` beside the package."""
    assert directory() == Path(redisq.__file__).parent.parent / "lua"


# What each part may import from the package; everything else points the wrong way.
LAYERS = {
    "errors": set(),
    "codecs": set(),
    "scripts": set(),
    "_keeper": set(),
    "ops": {"codecs", "errors", "ops", "scripts"},
    "sync": {"codecs", "errors", "ops", "sync"},
    "aio": {"aio", "codecs", "errors", "ops"},
    "worker": {"aio", "errors", "ops", "sync", "worker"},
    "asyncio": {"aio", "worker"},
    "embedded": {"_keeper", "errors"},
    "vendoring": {"__version__", "scripts"},
}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_downwards(layer: str) -> None:
    """Hold each layer to what it may import."""
    package = Path(redisq.__file__).parent
    files = list((package / layer).rglob("*.py")) or [package / f"{layer}.py"]
    for path in files:
        here = ["redisq", *path.relative_to(package).with_suffix("").parts]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = here[: -node.level] + (node.module.split(".") if node.module else [])
                parts = target[1:2] or [alias.name for alias in node.names]
                assert set(parts) <= LAYERS[layer], f"{path}: {parts}"
    if layer in {"errors", "codecs", "scripts", "ops"}:
        assert not any(re.search(r"^\s*(from|import) redis\b", path.read_text(), re.MULTILINE) for path in files)


@pytest.mark.parametrize("name", redisq.asyncio.__all__)
def test_asyncio_has_the_same_face(name: str) -> None:
    """The same methods, parameters, defaults, types and docstrings on both sides, and only the awaiting differs."""
    blocking, awaited = getattr(redisq, name), getattr(redisq.asyncio, name)
    if name == "Worker":  # threads and tasks end differently, and say so; the settings are the same
        assert inspect.signature(blocking).parameters.keys() == inspect.signature(awaited).parameters.keys()
        return
    assert blocking.__doc__.replace("asyncio kind", "blocking kind").split() == awaited.__doc__.split()

    def public(cls: type) -> dict[str, object]:
        return {key: member for key, member in vars(cls).items() if not key.startswith("_")}

    assert public(blocking).keys() == public(awaited).keys()
    for key, method in public(awaited).items():
        twin = public(blocking)[key]
        assert inspect.getdoc(method) == inspect.getdoc(twin)
        assert inspect.signature(method) == inspect.signature(twin)  # type: ignore[arg-type]
        assert inspect.iscoroutinefunction(method), key


def test_public_names_have_docstrings() -> None:
    """Every exported name, and every public method of it, says what it does."""
    for name in redisq.__all__:
        value = getattr(redisq, name)
        if inspect.isclass(value):
            assert value.__doc__, name
            for key, member in vars(value).items():
                if inspect.isfunction(member) and not key.startswith("_"):
                    assert inspect.getdoc(member), f"{name}.{key}"
