"""explain() and examine(): pictures, facts and refusals, on images, texts and attention."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from falconet import RunResult, cli, examine, explain, load_artifact, load_dataset
from falconet.data.drawing import encode_figure
from falconet.errors import ConfigError, DataError, PathError, UnknownNameError
from falconet.explanation.adapters import join_parts
from falconet.explanation.explaining import Explanations, _gather, plan, predict_sample, publish, read_subject, slug
from falconet.explanation.layers import (
    attention_weights,
    find_nearest,
    project,
    rank_units,
    read_attention,
    read_filters,
)
from falconet.explanation.panels import fit_title
from falconet.explanation.pictures import EXPLANATION_DPI, draw_embedding, spread, to_shades
from falconet.model_files import redact_settings
from falconet.models import create_model

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_files_are_explained(trained: RunResult, tmp_path: Path, capsys: Capture) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((9, 9), 120, dtype=np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "two" / "bad.png").write_bytes(b"no image")
    (tmp_path / "two" / "c.avif").write_bytes(b"-")
    (tmp_path / "two" / "gone.png").symlink_to("nothing")
    out = tmp_path / "why"
    arguments = ["explain", str(trained.out), str(tmp_path / "one" / "a.png"), str(tmp_path / "two"), "--out", str(out)]
    assert cli.run([*arguments, "--classes", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"out", "items", "methods", "best"} <= found.keys()
    assert len({item["picture"] for item in found["items"]}) == len(found["items"]) == 4
    assert [Path(item["file"]).name for item in found["skipped"]] == ["gone.png", "bad.png"]
    assert found["ignored"] == {".avif": 1}
    for item in found["items"]:
        assert Path(item["picture"]).read_bytes().startswith(b"\x89PNG")
        assert item["method"] == "gradcam"
        assert 0 <= item["deletion_auc"] <= 1
        assert 0 <= item["insertion_auc"] <= 1
        assert -1 <= item["randomization"] <= 1
    assert {score["method"] for score in found["methods"]} == {"gradcam", "random"}
    assert cli.run([*arguments, "--strict"]) == 1
    assert "gone.png: a link to nothing" in capsys.readouterr().err
    page = (out / "explanations.html").read_text(encoding="utf-8")
    assert page.count("<img") == 4
    assert "http" not in page
    assert json.loads((out / "explanations.json").read_text(encoding="utf-8")) == redact_settings(found)


def test_what_folders_hold_besides_is_listed_as_by_predict(trained: RunResult, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.full((9, 9), 120, dtype=np.uint8)).save(folder / "a.png")
    for name in ("b.avif", "c.avif", "d.txt", ".hidden"):
        (folder / name).write_bytes(b"-")
    (tmp_path / "far.png").write_bytes(b"-")
    (folder / "far.png").symlink_to(tmp_path / "far.png")
    artifact = load_artifact(trained.out)
    (samples,), refused, ignored = _gather(artifact, [folder], 8, "test", None, None)
    assert [samples.name(index) for index in range(len(samples))] == [str(folder / "a.png")]
    assert [item.file for item in refused] == [str(folder / "far.png")]
    assert ignored == {".avif": 2, ".txt": 1, "hidden": 1}


def test_class_names_stand_in_the_legend_as_they_are() -> None:
    names = ["_unknown_", "$x_{$"]
    figure = draw_embedding(np.array([[0.0, 1.0], [1.0, 0.0]]), [0, 1], names, [])
    assert encode_figure(figure, EXPLANATION_DPI).startswith(b"\x89PNG")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == names


def test_bars_and_curves_tell_the_same_probability(trained: RunResult) -> None:
    artifact = load_artifact(trained.out)
    artifact = dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, calibration_temperature=1.7))
    explainer = plan(artifact, "gradcam", Path(), classes=1)
    subject = read_subject(artifact, load_dataset("digits").splits["test"].samples, 3)
    probabilities = predict_sample(artifact, subject.inputs)
    target = int(probabilities.argmax())
    item, panel = explainer.evaluate(subject, "gradcam", target, probabilities)
    assert panel.faithfulness.deletion.probabilities[0] == pytest.approx(item.probability, abs=1e-5)
    assert panel.candidates[0][1] == pytest.approx(item.probability)


@pytest.mark.slow
def test_neighbors_are_other_samples_that_were_trained_on(trained: RunResult, tmp_path: Path) -> None:
    found = examine(trained.out, "digits", samples=1, split="train", out=tmp_path / "train")
    for case in (*found.mistakes, *found.doubts):
        assert len(case.neighbors) == 5
        assert case.file not in {neighbor.file for neighbor in case.neighbors}
    found = examine(trained.out, "digits", samples=1, split="all", out=tmp_path / "all", settings={"split_seed": 7})
    assert not any(case.neighbors for case in (*found.mistakes, *found.doubts))


@pytest.mark.slow
def test_the_report_of_a_source(trained: RunResult, tmp_path: Path) -> None:
    found = examine(trained.out, "digits", method="integrated_gradients", samples=2, out=tmp_path)
    assert len(found.mistakes) == len(found.doubts) == 2
    probabilities = [case.probability for case in found.mistakes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(case.truth != case.answer for case in found.mistakes)
    assert all(case.truth == case.answer for case in found.doubts)
    for case in (*found.mistakes, *found.doubts):
        cosines = [neighbor.cosine for neighbor in case.neighbors]
        assert len(cosines) == 5
        assert cosines == sorted(cosines, reverse=True)
        assert case.file not in {neighbor.file for neighbor in case.neighbors}
    assert [item.file for item in found.items] == [case.file for case in (*found.mistakes, *found.doubts)]
    names = {path.stem for path in tmp_path.glob("report-*.png")}
    assert {"report-doubts", "report-embedding", "report-filters", "report-maps", "report-units"} <= names


def test_pictures_of_an_earlier_model_do_not_stay(trained: RunResult, tmp_path: Path) -> None:
    artifact = load_artifact(trained.out)
    # As they are noted where `--out` was a relative path.
    named = [f"why/{name}" for name in EARLIER]
    facts = {"items": [{"picture": name} for name in (*named, "holiday.png", "../out.png", 3)], "attention": None}
    (tmp_path / "explanations.json").write_text(json.dumps(facts))
    kept = ("holiday.png", "001-mine.png", "notes.txt")
    for name in (*EARLIER, "report-filters.png", *kept):
        (tmp_path / name).touch()
    (tmp_path.parent / "out.png").touch()
    publish(Explanations(str(tmp_path), str(tmp_path / "explanations.html"), (), (), None), artifact, [], {})
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "explanations.json", "explanations.html"}
    assert (tmp_path.parent / "out.png").exists()


EARLIER = ("000-a-gradcam.png", "1000-été-as-3-x-cam.png", "002-b-attention.png")


def test_what_is_asked_wrongly_is_refused(trained: RunResult, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "why"
    with pytest.raises(UnknownNameError, match="did you mean digits"):
        explain(trained.out, "digitz", out=out)
    with pytest.raises(PathError, match="no such file or folder"):
        explain(trained.out, ["a.png", "b.png"], out=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PathError, match="wanted images, found none"):
        explain(trained.out, tmp_path / "empty", out=out)
    with pytest.raises(UnknownNameError, match="did you mean gradcam"):
        explain(trained.out, "digits", method="gradcm", out=out)
    with pytest.raises(ConfigError, match="classes"):
        explain(trained.out, "digits", classes=0, out=out)
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 files can be read"):
        explain(trained.out, tmp_path / "bad.png", out=out)
    assert not out.exists()
    assert cli.run(["explain", str(trained.out), "digits", "mnist", "--report", "--out", str(out)]) == 2
    assert "--report: wanted one source, found 2" in capsys.readouterr().err


def test_parts_of_a_text_are_the_text() -> None:
    # Three bytes of one character are three tokens, all of which cover it.
    parts, values = join_parts("a né!", [(0, 1), (1, 3), (3, 4), (3, 4), (4, 5)], np.array([1.0, 2, 3, 4, 5]))
    assert parts == ("a", " n", "é", "!")
    assert values.tolist() == [1, 2, 7, 5]


def test_names_of_pictures_are_harmless() -> None:
    assert slug("../a b.png") == "a_b_png"
    assert slug("***") == "sample"


def test_titles_stay_above_their_pictures() -> None:
    assert fit_title("gradcam: C++", 36) == "gradcam: C++"
    assert fit_title("occlusion: apple, with: some leaves in it", 36) == "occlusion\napple, with: some leaves in it"
    lines = fit_title(f"gradcam: {'x' * 50}end", 36).split("\n")
    assert lines[0] == "gradcam"
    assert len(lines[1]) == 36
    assert lines[1].endswith("end")


def test_shades_keep_their_sign() -> None:
    assert to_shades(np.array([0.0, -2.0, 1.0])).tolist() == pytest.approx([0, -1, 0.505], abs=0.01)
    assert not to_shades(np.zeros((2, 2))).any()


def test_attention_mixes_the_values_as_torch_does() -> None:
    queries, keys, values = torch.randn(3, 2, 4, 5, 8)
    present = torch.tensor([[True] * 5, [True, True, True, False, False]])[:, None, None]
    weights = attention_weights(queries, keys, present)
    expected = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=present)
    torch.testing.assert_close(weights @ values, expected)


def test_attention_of_a_transformer_and_of_none() -> None:
    tokens = torch.tensor([[3, 4, 5, 0, 0]])
    model = create_model("transformer", num_classes=2, in_channels=9, input_size=5, kind="text", layers=3, heads=2)
    weights = read_attention(model.eval(), tokens)
    assert weights.shape == (3, 1, 2, 5, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 1, 2, 5))
    assert not weights[..., 3:].any()
    with pytest.raises(ConfigError, match="wanted a network with attention"):
        read_attention(create_model("gru", num_classes=2, in_channels=9, input_size=5, kind="text"), tokens)


def test_projection_is_the_principal_components() -> None:
    from sklearn.decomposition import PCA

    vectors = torch.randn(30, 5) * torch.tensor([1.0, 5, 2, 1, 3])
    expected = PCA(2).fit_transform(vectors.numpy())
    np.testing.assert_allclose(np.abs(project(vectors).numpy()), np.abs(expected), rtol=1e-3, atol=1e-3)
    assert not project(torch.arange(4.0)[:, None])[:, 1].any()


def test_nearest_and_spread() -> None:
    known = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    indices, cosines = find_nearest(torch.tensor([[2.0, 2.1]]), known, 2)
    assert indices.tolist() == [[2, 1]]
    torch.testing.assert_close(cosines[0, 0].item(), 1.0, rtol=0, atol=1e-3)
    assert spread(np.array([[0.0, 0], [1, 0], [10, 0], [5, 0]]), 3) == [0, 2, 3]


def test_units_are_excited_by_their_best_samples(trained: RunResult) -> None:
    from falconet import load_dataset
    from falconet.explanation.layers import list_maps

    artifact, samples = load_artifact(trained.out), load_dataset("digits").split("val").samples
    inputs = artifact.preprocess.normalize(
        artifact.preprocess.prepare([samples.read(index) for index in range(len(samples))])
    )
    layer, maps = list(list_maps(artifact.model, inputs).items())[-1]
    best, peaks = rank_units(artifact, samples, layer, 3)
    expected = maps.amax(dim=(2, 3)).T.topk(3, dim=1)
    torch.testing.assert_close(peaks, expected.values, rtol=1e-4, atol=1e-4)
    assert best.shape == (maps.shape[1], 3)
    filters = read_filters(artifact.model)
    assert filters is not None
    assert filters.shape[1] == 1
