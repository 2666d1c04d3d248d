"""What an exported file says of itself, where it is damaged or hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from falconet.errors import ExportError
from falconet.exporters.metadata import Metadata, read_metadata
from falconet.spec import ClassificationSpec, ImageSpec, TextSpec

IMAGE = ImageSpec((1, 8, 8), (0.5,), (0.25,))
PAIR = ClassificationSpec(("a", "b"))
METADATA = Metadata("lenet5", IMAGE, PAIR, "probabilities", {"falconet": "1", "torch": "2"}, "0f")


def damage(**changes: Any) -> str:
    return json.dumps({**json.loads(METADATA.to_json()), **changes})


def damage_input(**changes: Any) -> str:
    return damage(input={**json.loads(METADATA.to_json())["input"], **changes})


DAMAGED = {
    "empty": "",
    "half of it": METADATA.to_json()[:-20],
    "no object": "[1, 2]",
    "null": "null",
    "nested": "[" * 100_000,
    "nested objects": '{"format_version": ' * 50_000,
    "a long integer": '{"format_version": ' + "9" * 5000 + "}",
    "version as text": damage(format_version="1"),
    "no version": "{}",
    "no number": damage_input(mean=[float("nan")]),
    "infinite": damage_input(std=[float("inf")]),
    "labels of one kind": damage(output_spec={"labels": ["a", "a"]}),
    "labels that are no texts": damage(output_spec={"labels": [1, 2]}),
    "a label that is none": damage(output_spec={"labels": None}),
    "a giant": damage_input(shape=[1, 10**9, 10**9]),
    "below zero": damage_input(shape=[1, -8, -8]),
    "another kind": damage_input(kind="video"),
    "another output": damage(output="answers"),
    "an unknown key": damage(owner="me"),
    "a batch in words": damage(batch="many"),
    "a tokenizer for images": damage(tokenizer_sha256="00"),
    "a text without tokenizer": Metadata("gru", TextSpec((9,), 50), PAIR, "logits", {}, "").to_json(),
    "no batch": damage(batch=0),
    "no side": damage(sides=0),
    "steps backwards": damage(steps=[9, 2]),
    "no step": damage(steps=[0, 2]),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_metadata_are_one_short_line(text: str) -> None:
    with pytest.raises(ExportError, match=r"^model\.onnx: (its metadata are damaged|wanted format version)") as told:
        read_metadata(text, "model.onnx")
    assert len(str(told.value)) < 500
    assert "\n" not in str(told.value)


def test_whole_metadata_come_back() -> None:
    assert read_metadata(METADATA.to_json(), "model.onnx") == METADATA
