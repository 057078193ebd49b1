"""The Lua reference, from the scripts' headers."""

from __future__ import annotations

import re

from redisq.core.scripts import Script, Slot, load, names

TITLES = {"buffer": "Buffer scripts", "priority": "Priority queue scripts", "limit": "Limiter script"}
REPLAY = {
    "once": "safe to send again with the same id",
    "lease": "safe to send again: the lease's id is the id",
    "yes": "harmless to send again",
    "no": "not to be sent again: a second run takes more",
}


def page(structure: str) -> str:
    """Return the page of a structure's scripts."""
    scripts = [load(name) for name in names() if name.startswith(f"{structure}/")]
    lines = [f"# {TITLES[structure]}", ""]
    lines += ["Made from the headers. [The scripts](/lua/scripts.md) explains keys, types and house rules.", ""]
    if len(scripts) > 1:
        lines += ["| script | does |", "| --- | --- |"]
        lines += [f"| [`{one.name}`](#{label(*one.name.split('/'))}) | {text(one.summary)} |" for one in scripts]
        lines.append("")
    for one in scripts:
        lines += section(one)
    return "\n".join(lines) + "\n"


def label(structure: str, verb: str) -> str:
    """Return the link target of a script."""
    return f"lua-{structure}-{verb.replace('_', '-')}"


def section(script: Script) -> list[str]:
    """Return a script's section."""
    lines = [
        f"({label(*script.name.split('/'))})=",
        f"## {script.name}",
        "",
        f"{text(script.summary[0].upper() + script.summary[1:])}.",
        "",
    ]
    lines += ["| KEYS | name | type | key |", "| ---: | --- | --- | --- |"]
    for place, key in enumerate(script.keys, 1):
        pattern, _, note = key.note.partition("  ")
        said = f" {text(note.strip())}" if note.strip() else ""
        lines.append(f"| {place} | `{key.name}` | {key.type} | `{pattern}`{said} |")
    if script.args:
        lines += ["", "| ARGV | name | type | meaning |", "| ---: | --- | --- | --- |"]
        for place, argument in enumerate(script.args, 1):
            lines.append(
                f"| {place}{'+' if argument.rest else ''} | `{argument.name}` | {argument.type} | {meaning(argument)} |"
            )
            lines += [f"| | `{field.name}` | | {meaning(field)} |" for field in argument.fields]
    if script.clauses("COMPUTES"):
        lines += ["", f"Computes {', '.join(f'`{pattern}`' for pattern in script.computes)}."]
    lines += ["", "| reply | meaning |", "| --- | --- |"]
    lines += [f"| {code(shape)} | {text(note)} |" for shape, note in clauses(script, "REPLY")]
    if script.errors:
        lines += ["", "| error | when |", "| --- | --- |"]
        lines += [f"| {code(shape)} | {text(note)} |" for shape, note in clauses(script, "ERROR")]
    replay = script.replay
    lines += ["", f"Replay: {REPLAY.get(replay.split()[0], text(replay))}.", "", f"SHA1: `{script.sha}`", ""]
    return lines


def meaning(slot: Slot) -> str:
    """Return an argument's range and meaning."""
    return text(re.sub(r"\s{2,}", ": ", slot.note.strip(), count=1))


def clauses(script: Script, kind: str) -> list[tuple[str, str]]:
    """Return the shape and the meaning of each clause of a kind.

    A line that begins with blanks carries the meaning on, or begins another shape.
    """
    found: list[tuple[str, str]] = []
    inside = False
    for line in script.header:
        start = re.match(rf"-- {kind}\s+(.*)", line)
        more = re.match(r"--\s{3,}(.*)", line) if inside else None
        inside = bool(start or more)
        if start or (more and more[1].startswith("[")):
            shape, _, note = (start or more)[1].partition("  ")  # type: ignore[index]
            found.append((shape, note.strip()))
        elif more:
            shape, note = found[-1]
            found[-1] = (shape, f"{note} {more[1].strip()}")
    return found


def code(shape: str) -> str:
    """Return a shape as code in a table."""
    return f"`{shape.replace('|', '&#124;')}`" if "|" not in shape else text(shape)


def text(line: str) -> str:
    """Return a header's text as Markdown."""
    line = re.sub(r"\s+", " ", line).replace("->", "→")
    return re.sub(r"([\\`*_<>\[\]|{}])", r"\\\1", line)
