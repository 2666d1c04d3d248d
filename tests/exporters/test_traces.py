"""Exports hold no path of the machine that wrote them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import onnx
import pytest

import falconet
from falconet.exporters.exporting import export
from falconet.exporters.onnx import SCOPES, list_parts
from falconet.runs import RunResult

NAMES = {"onnx": "m.onnx", "onnx-int8": "m.onnx", "openvino": "m.xml", "torch": "m.pt2", "triton": ""}


def read_bytes(path: Path) -> bytes:
    """Return a file's content, of an archive that of all its members."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


@pytest.mark.slow
@pytest.mark.parametrize("target", NAMES)
def test_no_path_of_this_machine(target: str, trained: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Whether integers cost accuracy is evaluated elsewhere.
    result = export(trained.out, target, out / NAMES[target], max_drop=100)
    content = {path.relative_to(out).as_posix(): read_bytes(path) for path in out.rglob("*") if path.is_file()}
    assert result.files.keys() == content.keys()
    assert sum(result.files.values()) == result.bytes
    assert next(iter(result.files)).rpartition("/")[2] == (NAMES[target] or "model.onnx")
    places = (str(Path(falconet.__file__).parent), "site-packages", str(tmp_path), str(Path.home()))
    for name, data in content.items():
        for place in places:
            assert place.encode() not in data, (name, place)


def test_notes_are_found_at_any_depth() -> None:
    def make(name: str, *attributes: onnx.AttributeProto) -> onnx.NodeProto:
        node = onnx.helper.make_node("If", ["c"], ["y"], name=name)
        node.attribute.extend(attributes)
        return node

    inner = onnx.helper.make_graph([make("deep")], "inner", [], [])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([make("top", onnx.helper.make_attribute("then_branch", inner))], "outer", [], [])
    )
    assert {part.name for part in list_parts(model)} == {"outer", "inner", "top", "deep"}
    assert SCOPES.endswith("name_scopes")
