"""The documentation's build: `make docs`. Nothing in it needs the network."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

import redisq  # noqa: E402

project = "redisq"
version = release = redisq.__version__
author = "the redisq authors"
project_copyright = "the redisq authors. MIT licence"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "repository", "names"]
exclude_patterns = ["_ext"]
source_suffix = {".md": "markdown"}

# Where files of the repository that are no page of the site are linked to, such as "https://HOST/OWNER/redisq/blob/main".
# Empty: they are named, not linked.
repository_url = ""

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
highlight_language = "none"
pygments_style = "default"
pygments_dark_style = "github-dark"

default_role = "py:obj"  # a single backtick in a docstring: a link where the name is documented, else code
nitpick_ignore_regex = [
    ("py:obj", "(?s).*"),
    # Type variables, and classes of other packages.
    ("py:class", r"(redisq\..*\.)?(T|C|R|Found|Result|[A-Z]_co|T_co|_\w+)"),
    (
        "py:class",
        r"(redis|valkey|collections|typing|contextlib|pathlib|opentelemetry|prometheus_client|optional|abc)\b.*",
    ),
    ("py:class", r"(Client|AnyPipeline|Flow|Any|Literal.*|Iterable.*)"),
    ("py:class", r"redisq\.core\.(clients\.(Async)?ValkeyClient|scripts\.Slot)"),
    ("py:class", r"(BaseException|Exception|ValueError|Enum|str|bytes|int|float|bool|object|dict|list|tuple|None)"),
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "inherited-members": "Exception,BaseException,Generic,Enum,str,tuple"}
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "redisq"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#b31d28", "color-brand-content": "#b31d28"},
    "dark_css_variables": {"color-brand-primary": "#ff7b72", "color-brand-content": "#ff7b72"},
}
