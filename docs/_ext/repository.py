"""Pages that are kept elsewhere in the repository, and links between pages and other files of it.

Before the build, `docs/lua`, `docs/project` and `docs/commands.md` are written: the Lua reference from the scripts'
headers, the commands from their parsers, and the READMEs beside the scripts, the changelog and so on as they are. In
every page, a link to a file that is no page of the site leads to `repository_url`, and a `<picture>` becomes two
images, of which the theme shows one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import lua_reference
from sphinx.application import Sphinx

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
PAGES = {
    "README.md": "index.md",
    "lua/README.md": "lua/scripts.md",
    "lua/CLIENTS.md": "lua/clients.md",
    "lua/conformance/README.md": "lua/conformance.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "tests/README.md": "project/testing.md",
    "examples": "examples.md",
}
"""The page of the site for a file that is kept elsewhere."""
WRITTEN: dict[str, Callable[[], str]] = {
    "lua/buffer.md": lambda: lua_reference.page("buffer"),
    "lua/priority.md": lambda: lua_reference.page("priority"),
    "lua/limit.md": lambda: lua_reference.page("limit"),
    "commands.md": commands.page,
}
DIAGRAMS = {"[*] --> waiting": "buffer-states", "[*] --> ready": "priority-states", "sequenceDiagram": "lease"}
"""The picture that stands for a Mermaid diagram, which GitHub draws by itself, by something that it contains."""

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
_PICTURE = re.compile(
    r"<picture>\s*<source[^>]*srcset=\"(?P<dark>[^\"]+)\"[^>]*>\s*"
    r"<img alt=\"(?P<alt>[^\"]*)\" src=\"(?P<light>[^\"]+)\"[^>]*>\s*</picture>"
)


def page_of(path: str) -> str | None:
    """Return the page for a file or folder of the repository, or a label on one, such as `#lua-buffer-push`."""
    if path in PAGES:
        return PAGES[path]
    if script := re.fullmatch(r"lua/(buffer|priority|limit)/(\w+)\.lua", path):
        return f"#{lua_reference.label(script[1], script[2])}"
    if example := re.fullmatch(r"examples/(\w+)\.py", path):
        return f"#example-{example[1].replace('_', '-')}"
    inside = re.fullmatch(r"docs/(.+\.md)", path)
    return inside[1] if inside else None


def link(text: str, target: str, folder: Path, url: str) -> str:
    """Return a Markdown link, from a file in `folder`, as it is on the site."""
    if re.match(r"\w+:|[#/]", target):  # elsewhere, here, or a page of the site already
        return f"[{text}]({target})"
    path, _, anchor = target.partition("#")
    full = Path(os.path.normpath(folder / path)).relative_to(ROOT).as_posix()
    if not (ROOT / full).exists():
        raise FileNotFoundError(f"a link to {target} from {folder}: there is no such file")
    page = page_of(full)
    if page and page.startswith("#"):
        return f"[{text}]({page})"
    if page:
        return f"[{text}](/{page}{f'#{anchor}' if anchor else ''})"
    if url:
        return f"[{text}]({url}/{full}{f'#{anchor}' if anchor else ''})"
    # Named, not linked: by its path, unless the text is a phrase of its own.
    plain = text.strip("`")
    return f"`{full}`" if full.endswith(plain) or " " not in plain else f"{text} (`{full}`)"


def on_site(text: str, origin: Path, docname: str, url: str) -> str:
    """Return the Markdown of a file of the repository as it is on the site."""
    up = "../" * docname.count("/")

    def drawn(found: re.Match[str]) -> str:
        name = next((name for sign, name in DIAGRAMS.items() if sign in found[1]), None)
        if name is None:
            raise ValueError(f"a Mermaid diagram of {origin} has no picture in DIAGRAMS: {found[1][:60]}")
        start = f"{up}images/diagrams/{name}"
        return f"![A diagram]({start}.svg){{.only-light}}\n![A diagram]({start}-dark.svg){{.only-dark}}"

    def shown(found: re.Match[str]) -> str:
        light, dark = (
            os.path.relpath(origin.parent / found[one], (DOCS / docname).parent) for one in ("light", "dark")
        )
        return f"![{found['alt']}]({light}){{.only-light}}\n![{found['alt']}]({dark}){{.only-dark}}"

    text = _MERMAID.sub(drawn, text)
    text = _PICTURE.sub(shown, text)
    parts, end = [], 0
    for fence in _FENCE.finditer(text):  # code is left as it is
        parts += [
            _LINK.sub(lambda found: link(found[1], found[2], origin.parent, url), text[end : fence.start()]),
            fence[0],
        ]
        end = fence.end()
    parts.append(_LINK.sub(lambda found: link(found[1], found[2], origin.parent, url), text[end:]))
    return "".join(parts)


def write(app: Sphinx) -> None:
    """Write the pages that are kept elsewhere; one that is as it was is left alone, so that it is not built again."""
    made = {page: text() for page, text in WRITTEN.items()}
    for origin, page in PAGES.items():
        if page not in ("index.md", "examples.md"):
            text = (ROOT / origin).read_text("utf-8")
            made[page] = on_site(text, ROOT / origin, page.removesuffix(".md"), app.config.repository_url)
    for page, text in made.items():
        target = DOCS / page
        if not target.exists() or target.read_text("utf-8") != text:
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, "utf-8")


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    """Adapt a page that is kept in `docs`."""
    if f"{docname}.md" not in {*PAGES.values(), *WRITTEN} - {"index.md", "examples.md"}:
        content[0] = on_site(content[0], DOCS / f"{docname}.md", docname, app.config.repository_url)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.add_config_value("repository_url", "", "env")
    app.connect("builder-inited", write, priority=100)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
