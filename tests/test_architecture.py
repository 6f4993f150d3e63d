"""Imports point down only: the layers of the house plan, read from the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pysaslauthd"
VALUES = {"model", "errors"}
MAY = {
    "model": set(),
    "errors": set(),
    "wire": VALUES,
    "sasl": VALUES,
    "smtp": VALUES | {"sasl.server"},
    "passwords": VALUES,
    "stores": VALUES | {"passwords"},
    "workers": VALUES,
    "remote": VALUES,
    "backends": VALUES | {"wire", "passwords", "stores", "workers", "remote", "sasl.client"},
    "engine": VALUES | {"sasl", "backends.base"},
    "server": VALUES | {"wire", "smtp", "sasl.server", "engine"},
    "config": VALUES,
}
COMPOSITION_ROOT = {
    "app",
    "channel",
    "cli",
    "crew",
    "daemon",
    "doors",
    "link",
    "logs",
    "plugins",
    "offer",
    "privileges",
    "smtpd",
    "rundir",
    "strays",
    "supervisor",
    "systemd",
    "worker",
    "__init__",
    "__main__",
}
WITHOUT_IO = {"model", "wire", "sasl", "smtp"}
IO_MODULES = {"asyncio", "logging", "os", "select", "socket", "ssl", "threading"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the layer"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_allowed(imported: str, own: str) -> bool:
    below = imported.removeprefix("pysaslauthd.")
    return any(below == name or below.startswith(f"{name}.") for name in MAY[own] | {own})


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_below(module: Path) -> None:
    own = layer(module)
    if own in COMPOSITION_ROOT:
        return

    ours = [name for name in imports(module) if name.startswith("pysaslauthd.")]

    assert [name for name in ours if not is_allowed(name, own)] == []


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if layer(m) in WITHOUT_IO],
    ids=lambda m: str(m.relative_to(PACKAGE)),
)
def test_a_layer_without_io_imports_none(module: Path) -> None:
    found = {name.split(".")[0] for name in imports(module)}

    assert found & IO_MODULES == set()


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer(module) for module in MODULES} <= set(MAY) | COMPOSITION_ROOT


def test_concrete_backends_do_not_import_each_other() -> None:
    inside = {m: m.relative_to(PACKAGE / "backends") for m in MODULES if layer(m) == "backends"}
    own = {m: Path(path.parts[0]).stem for m, path in inside.items()}  # a module, or a package

    for module, name in own.items():
        others = {f"pysaslauthd.backends.{other}" for other in set(own.values()) - {name, "base"}}
        assert not [n for n in imports(module) if ".".join(n.split(".")[:3]) in others]


def test_nothing_uses_what_later_pythons_have_dropped() -> None:
    dropped = {"crypt", "spwd", "imp", "asyncore", "distutils"}

    found = {(m.name, n) for m in MODULES for n in imports(m) if n.split(".")[0] in dropped}

    assert found == set()
    assert sys.version_info >= (3, 11)


@pytest.mark.parametrize(
    ("library", "user"), [("aiosmtpd", "server/smtp.py"), ("aiosmtplib", "server/relay.py")]
)
def test_a_large_library_is_imported_in_one_place(library: str, user: str) -> None:
    users = {m for m in MODULES if any(n.split(".")[0] == library for n in imports(m))}

    assert users == {PACKAGE / user}
