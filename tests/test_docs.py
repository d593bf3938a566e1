"""What the pages say works.

Every block of Python on every page runs, in order, in one module per page, in a folder that holds
`me.jpg` and `hello.wav`. A block that awaits gets an event loop of its own, as a cell of a
notebook has one. Fences are found by markdown-it, which rich brings along: the collectors for
pytest that are about (pytest-examples, sybil, mktestdocs) know no top-level `await`, and without
it they add little to a dozen lines.

- A block whose title begins with "Not run in the tests" is compiled, its imports are made, and
  each name in it must be known; the title gives the reason, and readers see it.
- A block of text right after a block of code is what that prints, `...` standing for anything; one
  with the title "standard error", what it prints there.
- Functions that a block names `test_...` are run.
- Lines of a shell that begin with `python -m talkgen` run; those that fetch are parsed only.
"""

import ast
import builtins
import dis
import doctest
import inspect
import os
import re
import shlex
import socket
import subprocess
import sys
import types
import wave
from importlib import import_module
from pathlib import Path

import anyio
import attrs
import pytest
from markdown_it import MarkdownIt
from PIL import Image as Pillow

from talkgen import errors
from talkgen.__main__ import _parser, main
from talkgen.generators.did import Clock, DIdClient, DIdGenerator
from talkgen.testing import FakeDId

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
KEY = "user:password"
UNRUN = "Not run in the tests"
ERRORS = "standard error"
OUTPUT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


# --- blocks ------------------------------------------------------------------------------------


@attrs.frozen
class Block:
    """A fenced block.

    Attributes:
        page: Where it is.
        line: Where it begins there, from 0.
        language: Its language.
        title: What stands above it.
        text: What is in it.
        printed: The block of what it prints, where the page has one.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str
    printed: "Block | None" = None

    def compiled(self):
        source = "\n" * (self.line + 1) + self.text
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile(source, str(self.page), "exec", flags=flags, dont_inherit=True)


def blocks(page, text=None, above=0):
    found = []
    before = None
    for token in MarkdownIt("commonmark").parse(page.read_text() if text is None else text):
        if token.type == "code_block" and token.content.startswith("```"):  # under a tab
            found += blocks(page, token.content, above + token.map[0])
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            title = re.search(r'title="([^"]*)"', rest)
            line = above + token.map[0]
            block = Block(page, line, language, title[1] if title else "", token.content)
            if found and language == "text" and (before == "fence" or block.title == ERRORS):
                found[-1] = attrs.evolve(found[-1], printed=block)
            found.append(block)
        before = token.type
    return found


def name_of(page):
    return str(page.relative_to(ROOT))


# --- running them ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory, portrait_path, speech_path):
    """What the pages take for granted: photos and a recording of half a second."""
    folder = tmp_path_factory.mktemp("media")
    with Pillow.open(portrait_path) as portrait:
        me = portrait.convert("RGB")
    me.save(folder / "me.jpg", quality=95)
    group = Pillow.new("RGB", (2 * me.width, me.height))
    group.paste(me, (0, 0))
    group.paste(me.resize((me.width * 3 // 4, me.height * 3 // 4)), (me.width, me.height // 4))
    group.save(folder / "group.jpg", quality=95)
    Pillow.new("RGB", (640, 360), "#335577").save(folder / "office.jpg")
    with wave.open(str(speech_path)) as speech, wave.open(str(folder / "hello.wav"), "wb") as short:
        short.setparams(speech.getparams())
        short.writeframes(speech.readframes(speech.getframerate() * 12 // 25))
    return folder


@pytest.fixture(scope="module")
def service():
    with FakeDId(speed=100, api_key=KEY) as service:
        yield service


def _loopback_only(connect):
    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a page reaches for the network: {address}")
        return connect(self, address)

    return guarded


@pytest.fixture
def page_module(tmp_path, monkeypatch, media_folder, service):
    """A module for the page's names, in a folder of its own, with D-ID's stand-in for D-ID."""
    for file in media_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", _loopback_only(socket.socket.connect))
    for variable in list(os.environ):
        if variable.startswith(("TALKGEN_D", "TALKGEN_R", "D_ID_", "STORAGE_", "YOLO_", "BIREF")):
            monkeypatch.delenv(variable)
    for variable in ("TALKGEN_DETECTOR", "TALKGEN_REMOVER"):
        monkeypatch.setenv(variable, "embedded")  # as after a plain install
    for kind in (DIdClient, DIdGenerator):
        monkeypatch.setitem(kind.__init__.__kwdefaults__, "base_url", service.base_url)
        monkeypatch.setitem(kind.__init__.__kwdefaults__, "clock", Clock(100))
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    module.key = KEY
    module.jpeg = (media_folder / "me.jpg").read_bytes()
    module.wav = (media_folder / "hello.wav").read_bytes()
    return module


def run_python(block, module, backend):
    names = vars(module)
    code = block.compiled()
    known = set(names)
    if block.title.startswith(UNRUN):
        resolve(block, names)
    elif code.co_flags & inspect.CO_COROUTINE:
        anyio.run(_awaited, code, names, backend=backend)
    else:
        exec(code, names)
    for name in sorted(names.keys() - known):
        if name.startswith("test_"):
            run_test(names[name], backend)


async def _awaited(code, names):
    await eval(code, names)


def run_test(function, backend):
    if inspect.iscoroutinefunction(function):
        anyio.run(function, backend=backend)
    else:
        function()


def resolve(block, names):
    """Make the imports of a block that does not run, and look each of its names up."""
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), str(block.page), "exec"), names)
    code = block.compiled()
    assigned = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    defined = {node.name for node in ast.walk(tree) if hasattr(node, "name") and node.name}
    unknown = _globals(code) - assigned - defined - names.keys() - vars(builtins).keys()
    assert not unknown, f"{block.page.name}:{block.line}: nobody knows {unknown}"


def _globals(code):
    used = {
        one.argval
        for one in dis.get_instructions(code)
        if one.opname in {"LOAD_NAME", "LOAD_GLOBAL"}
    }
    inner = [_globals(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return used.union(*inner)


def run_shell(block, monkeypatch):
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        words = shlex.split(line, comments=True)
        with monkeypatch.context() as patch:
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                variable, _, value = words.pop(0).partition("=")
                patch.setenv(variable, value)
            if words[:3] != ["python", "-m", "talkgen"]:
                continue
            if block.title.startswith(UNRUN) or words[3] == "fetch":
                _parser().parse_args(words[3:])
            else:
                assert main(words[3:]) == 0, f"{line} failed"


def check_printed(expected, captured):
    if expected is not None:
        printed = captured.err if expected.title == ERRORS else captured.out
        if not doctest.OutputChecker().check_output(expected.text, printed, OUTPUT):
            pytest.fail(f"{expected.page}:{expected.line}: this is printed:\n{printed}")


def runnable(page):
    return any(block.language in {"python", "sh"} for block in blocks(page))


LOOPS = [pytest.param("asyncio"), pytest.param("trio", marks=pytest.mark.slow)]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("page", [*filter(runnable, PAGES)], ids=name_of)
def test_the_code_on_the_pages_runs(page, loop, page_module, monkeypatch, capsys):
    for block in blocks(page):
        if block.language == "python":
            if "asyncio" in block.title and loop != "asyncio":
                continue
            run_python(block, page_module, loop)
        elif block.language == "sh" and loop == "asyncio":
            run_shell(block, monkeypatch)
        else:
            continue
        check_printed(block.printed, capsys.readouterr())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_what_they_are(page):
    known = {"python", "sh", "text", "json", "javascript", "toml", "yaml", "html", "promql", "ini"}
    for block in blocks(page):
        assert block.language in known, f"{page.name}:{block.line}: {block.language!r}"
        if block.title.startswith(UNRUN):
            assert re.match(f"{UNRUN}.+", block.title), f"{page.name}:{block.line}: no reason"


# --- what must be complete ---------------------------------------------------------------------


def test_every_error_has_its_remedy():
    """A row for each class, no row for another."""
    rows = re.findall(r"^\| `([A-Z]\w+)`", (DOCS / "errors.md").read_text(), re.MULTILINE)
    raised = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TalkgenError)
    ]
    assert sorted(rows) == sorted(raised)


PUBLIC = [
    "talkgen",
    "talkgen.cache",
    "talkgen.display",
    "talkgen.errors",
    "talkgen.events",
    "talkgen.generators.did",
    "talkgen.generators.local",
    "talkgen.journal",
    "talkgen.models.birefnet",
    "talkgen.models.face",
    "talkgen.models.matting",
    "talkgen.models.segmentation",
    "talkgen.models.weights",
    "talkgen.models.yolo",
    "talkgen.protocols",
    "talkgen.scheduling",
    "talkgen.stages.background",
    "talkgen.stages.detection",
    "talkgen.stages.generation",
    "talkgen.storage",
    "talkgen.testing",
    "talkgen.testing.fake_did",
]


def directives():
    return {
        path
        for page in (DOCS / "api").glob("*.md")
        for path in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
    }


def constants_homes(name, value, paths):
    """Modules that have this very value: a constant does not know its own."""
    modules = [sys.modules[path] for path in paths if path in sys.modules]
    return {module.__name__ for module in modules if vars(module).get(name) is value}


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module):
    there = directives()
    missing = []
    for name in import_module(module).__all__:
        value = getattr(import_module(module), name)
        homes = {module, f"{module}.{name}", *constants_homes(name, value, there)}
        if hasattr(value, "__module__") and hasattr(value, "__qualname__"):
            homes |= {value.__module__, f"{value.__module__}.{value.__qualname__}"}
        if not homes & there:
            missing.append(name)
    assert not missing


def undescribed(value):
    """Fields, properties and methods of a public class that its docstrings do not mention."""
    told = "\n".join(kind.__doc__ or "" for kind in value.__mro__)
    if attrs.has(value):
        fields = (field.name for field in attrs.fields(value) if field.init)
        yield from (name for name in fields if not re.search(rf"\b{name}:", told))
    for name, member in vars(value).items():
        function = getattr(member, "fget", member)
        documented = getattr(function, "__doc__", None) or re.search(rf"\b{name}:", told)
        if isinstance(member, property | types.FunctionType) and not documented:
            yield name


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_class_says_what_it_has(module):
    members = vars(import_module(module))
    classes = [
        members[name]
        for name in import_module(module).__all__
        if isinstance(members.get(name), type)
    ]
    missing = [
        f"{kind.__name__}.{name}"
        for kind in classes
        for name in undescribed(kind)
        if not name.startswith("_")
    ]
    assert not missing


@pytest.mark.slow
def test_the_built_reference_has_every_public_name(tmp_path):
    """The pages as mkdocs builds them: a name without a docstring would be left out."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600)
    html = "".join(page.read_text() for page in (tmp_path / "api").rglob("*.html"))
    anchors = set(re.findall(r'id="(talkgen[\w.]+)"', html))
    ends = {anchor.rpartition(".")[2] for anchor in anchors}
    missing = [
        f"{module}.{name}"
        for module in PUBLIC
        for name in import_module(module).__all__
        if name not in ends
    ]
    assert not missing


def test_every_page_is_in_the_navigation():
    written = {
        str(page.relative_to(DOCS))
        for page in DOCS.rglob("*.md")
        if not {"assets", "examples"} & set(page.relative_to(DOCS).parts)
    }
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert written <= listed
