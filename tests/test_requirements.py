"""A failing import says what to install."""

import importlib
import sys
from pathlib import Path

import pytest

from talkgen.errors import MissingDependency
from talkgen.requirements import INSTALLED_BY, SYSTEM_LIBRARIES, explained

LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"


def raised(error: ImportError) -> MissingDependency:
    with pytest.raises(MissingDependency) as caught, explained():
        raise error
    assert caught.value.__cause__ is error
    return caught.value


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(MissingDependency) as caught, explained():
        importlib.import_module("talkgen_has_no_such_package")

    assert "talkgen_has_no_such_package" in str(caught.value)
    assert caught.value.hint == 'Install it: pip install "talkgen"'
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("PIL.Image", 'pip install "pillow"'),
        ("cv2", 'pip install "opencv-python"'),
        ("torch.nn", 'pip install "talkgen[birefnet]"'),
        ("ultralytics", 'pip install "talkgen[yolo]"'),
    ],
)
def test_distributions_and_extras_have_their_own_names(module: str, command: str) -> None:
    error = raised(ModuleNotFoundError(f"No module named {module!r}", name=module))

    assert command in (error.hint or "")


def test_a_module_that_another_fails_to_import_is_the_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrapper_of_obstore.py").write_text("import obstore.of.the.test\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(MissingDependency) as caught, explained():
        importlib.import_module("wrapper_of_obstore")

    assert "package obstore " in str(caught.value)
    assert caught.value.hint == 'Install it: pip install "talkgen[s3]"'


@pytest.mark.parametrize(("library", "package"), SYSTEM_LIBRARIES.items())
def test_a_missing_system_library_names_its_package(library: str, package: str) -> None:
    error = raised(ImportError(LIBGL.replace("libGL.so.1", library), name="cv2"))

    assert str(error) == f"The system library {library} is missing."
    assert f"apt-get install {package} " in (error.hint or "")


def test_a_library_that_is_not_known_is_named_all_the_same() -> None:
    error = raised(ImportError(LIBGL.replace("libGL.so.1", "libfoo-2.so.7"), name="cv2"))

    assert "libfoo-2.so.7" in str(error)
    assert "libfoo-2.so.7" in (error.hint or "")
    assert "apt-get" not in (error.hint or "")


def test_an_import_error_without_a_name_is_explained_too() -> None:
    assert "DLL load failed" in str(raised(ImportError("DLL load failed")))


def test_what_is_explained_already_passes_unchanged() -> None:
    inner = MissingDependency("The weights are missing.", hint="Run: talkgen fetch")

    with pytest.raises(MissingDependency) as caught, explained():
        raise inner

    assert caught.value is inner


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), explained():
        raise ZeroDivisionError


def test_what_works_works() -> None:
    with explained():
        module = importlib.import_module("json")

    assert module.dumps([]) == "[]"


def test_distributions_named_are_those_that_the_project_needs(pytestconfig: pytest.Config) -> None:
    declared = (pytestconfig.rootpath / "pyproject.toml").read_text()

    for requirement in INSTALLED_BY.values():
        assert f'"{requirement}>=' in declared or requirement.startswith("talkgen[")
