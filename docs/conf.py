"""The site: ``sphinx-build docs OUT``. Ops, commands, docstrings and files to download are made from the code."""

import contextlib
import importlib
import io
import re
import runpy
import shutil
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

HERE = Path(__file__).parent
ROOT = HERE.parent
MADE = HERE / "made"  # by this file, not committed
sys.path.insert(0, str(ROOT))

project = "posekernels"
author = "The posekernels maintainers"
copyright = "the posekernels maintainers, MIT"
html_title = "posekernels"
html_theme = "furo"
html_static_path = ["style"]
html_css_files = ["style.css"]
html_extra_path = ["made/open"]  # pages of people, to be opened as they are
html_show_sphinx = False
html_copy_source = False
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["made/**"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # they would make quotes of primes, and dashes of options
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature shows them
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_param = False

OPS = sorted(path.parent.name for path in (ROOT / "posekernels/ops").glob("*/README.md"))


class Help(Directive):
    """``{help} lift``: what ``posekernels lift --help`` says; ``{help} train.h36m`` for a program."""

    required_arguments = 1

    def run(self):
        (name,) = self.arguments
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            if name.startswith("train."):
                importlib.import_module(f"posekernels.{name}").main(["--help"])
            else:
                importlib.import_module("posekernels.__main__").run([name, "--help"])
        return [nodes.literal_block(said.getvalue(), said.getvalue(), language="text")]


def op_page(op: str) -> str:
    """A page of an op: its functions, then its README.md, as it stands in its folder."""
    module = importlib.import_module(f"posekernels.ops.{op}")
    public = importlib.import_module("posekernels.ops")
    found = {name: thing for name, thing in vars(public).items() if getattr(thing, "__module__", "") == module.__name__}
    kinds = {name: "autoclass" if isinstance(thing, type) else "autofunction" for name, thing in found.items()}
    functions = "\n".join(f".. {kind}:: posekernels.ops.{name}" for name, kind in kinds.items())
    include = f"```{{include}} ../../posekernels/ops/{op}/README.md\n```\n"
    return f"{include}\n## In Python\n\n```{{eval-rst}}\n{functions}\n```\n"


def make(_app) -> None:
    """Pages of ops, and under ``made/`` the files that pages offer, and what lifting makes of them."""
    from posekernels.__main__ import run

    for folder in (MADE, HERE / "ops"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (HERE / "ops", MADE / "files", MADE / "open"):
        folder.mkdir(parents=True)
    for op in OPS:
        (HERE / f"ops/{op}.md").write_text(op_page(op))
    files = MADE / "files"
    runpy.run_path(str(HERE / "samples.py"))["write"](files)
    shutil.make_archive(str(files / "openpose"), "zip", files, "openpose")
    with contextlib.redirect_stderr(io.StringIO()):
        outs = [word for form in FORMS for word in ("-o", str(files / f"swing.{form}"))]
        source = ["lift", str(files / "coco.json"), "--fps", "25", "--panel", "240", "--no-progress"]
        assert run([*source, *outs]) == 0
        assert run([*source, "-o", str(MADE / "open/swing.html")]) == 0
        ahead = ["forecast", str(files / "swing.npz"), "-o", str(MADE / "open/next.html")]
        assert run(ahead) == 0


def for_the_site(_app, _name: str, source: list[str]) -> None:
    """What a page has in the site alone: ``<!-- site ... -->``, links to them and to ops' pages."""

    def linked(named: re.Match) -> str:
        if (MADE / "files" / named[1]).is_file():
            return f"[{named[0]}](made/files/{named[1]})"
        page = (MADE / "open" / named[1]).is_file()
        return f'<a href="{named[1]}"><code>{named[1]}</code></a>' if page else named[0]

    text = re.sub(r"^<!-- site\n(.*?)\n-->$", r"\1", source[0], flags=re.M | re.S)
    text = re.sub(r"\(\.\./posekernels/ops/(\w+)/README\.md\)", r"(ops/\1.md)", text)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)  # text, a block, text, ...
    source[0] = "".join(p if i % 2 else re.sub(r"(?<!`)`([\w.]+)`(?!`)", linked, p) for i, p in enumerate(parts))


def last_words(_app, _what, _name, _thing, _options, lines: list[str]) -> None:
    """``Gradient: ...`` and ``Source: ...`` at the end of an op's docstring as paragraphs of their own."""
    found: list[str] = []
    inside = False
    for line in lines:
        named = re.match(r"(Gradient|Source): (.*)", line)
        inside = bool(named) or inside and bool(line.strip())
        found += ["", f"**{named[1]}.** {named[2]}"] if named else [line.strip() if inside else line]
    lines[:] = found


def short(_app, doctree, _name) -> None:
    """Numbers in tables, and options and names anywhere, stay on one line; other cells get width to be read in."""
    for kind in (nodes.entry, nodes.literal):
        for node in doctree.findall(kind):
            if len(node.astext()) <= 24:
                node["classes"].append("short")


FORMS = ("npz", "json", "bvh", "trc", "c3d", "glb", "gltf", "gif", "mp4")


def setup(app):
    app.add_directive("help", Help)
    app.connect("autodoc-process-docstring", last_words, priority=100)  # before napoleon reads it
    app.connect("source-read", for_the_site)
    app.connect("doctree-resolved", short)
    app.connect("config-inited", lambda app, _config: make(app))
