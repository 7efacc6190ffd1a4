"""Imports run downwards only: every room has a floor, and none reaches up."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "segmed"

FLOORS = [
    {"errors"},
    {"files", "machine", "geometry", "labels", "targets"},
    {"config", "volumes", "networks", "losses", "metrics"},
    {"runs", "data"},
    {"segmenters", "training", "evaluate", "cardiac", "trust"},
    {"builders", "reports"},
    {"segment", "classify", "compare"},
    {"compose", "export", "jobs"},
    {"commands", "public"},
]  # on top of them tools/ and benchmarks/
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
STRANGERS = [{"networks", "losses"}, {"networks", "metrics"}, {"losses", "metrics"}, {"segmenters", "evaluate"}]


def imports(path: Path) -> set[str]:
    """Rooms of segmed that a module imports, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "segmed":
                names = [f"segmed.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("segmed.")}
    return found


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


MODULE_NAMES = {"segmed." + ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES}


def test_every_room_has_a_floor():
    assert {room_of(path) for path in MODULES} <= set(FLOOR)


def test_imports_run_downwards():
    upwards = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in MODULES
        for other in imports(path)
        if other in FLOOR and FLOOR[other] > FLOOR[room_of(path)]
    ]
    assert not upwards


def test_networks_losses_and_metrics_know_nothing_of_files_or_of_each_other():
    known = {"files", "volumes", "data", "config"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in MODULES
        for other in imports(path)
        if (room_of(path) in {"networks", "losses", "metrics"} and other in known)
        or (room_of(path) != other and {room_of(path), other} in STRANGERS)
    ]
    assert not wrong


def test_no_circles_between_modules():
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        name = ".".join(("segmed", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        graph[name] = {
            whole if whole in MODULE_NAMES else node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("segmed.")
            for whole in (f"{node.module}.{alias.name}" for alias in node.names)
        } - {name}

    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_config_imports_neither_torch_nor_monai():
    files = ("files/__init__.py", "files/atomic.py", "files/csv_table.py", "files/plain.py")
    for name in ("config/__init__.py", "config/data.py", "config/training.py", "config/reading.py", *files):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        modules += [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
        assert not [m for m in modules if m.split(".")[0] in {"torch", "monai", "torchio"}], name


def test_no_module_is_a_drawer():
    drawers = {"utils", "helpers", "misc", "common"}
    assert not [path for path in MODULES if path.stem in drawers]


TWINS = {"segment", "classify", "compose", "compare"}  # rooms of the same shape, with the same file names
FREE_NAMES = {"reports", "commands"}  # reports have the same files for each subject, commands are named after the work
VERBS = {"found", "made"}


def test_no_file_name_stands_twice():
    folders: dict[str, list[Path]] = {}
    for path in MODULES:
        if path.name != "__init__.py" and room_of(path) not in FREE_NAMES:
            folders.setdefault(path.name, []).append(path)
    doubles = [paths for paths in folders.values() if len(paths) > 1 and not {room_of(path) for path in paths} <= TWINS]
    assert not doubles


def names_of(path: Path) -> set[str]:
    """Names of the variables, arguments and attributes that a module sets or reads."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return (
        names
        | {node.arg for node in nodes if isinstance(node, ast.arg)}
        | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    )


def test_no_verb_is_the_name_of_a_thing():
    assert not [f"{path.relative_to(ROOT)}: {verb}" for path in MODULES for verb in VERBS & names_of(path)]
