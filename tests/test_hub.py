"""Pushing a model and loading it again, against a server that speaks as much of the hub's protocol as that needs."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import EvalResult

import falconet
from falconet import RunResult
from falconet.cli import run
from falconet.errors import ArtifactError, HubError, MissingExtraError, PathError
from falconet.model_files import ARTIFACT_FILES, MODEL_FILES, check_artifact, parse_model

FOREIGN = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"large"}


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit -> name -> content, in order."""

    def find(self, revision: str) -> str | None:
        if revision == "main":
            return next(reversed(self.commits), None)
        return revision if revision in self.commits else None


class Hub(ThreadingHTTPServer):
    """What the hub keeps, and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str, files: dict[str, bytes], gone: Set[str] = frozenset()) -> str:
        repository = self.repositories.setdefault(name, Repository(private=False))
        before = next(reversed(repository.commits.values()), {})
        sha = hashlib.sha1(f"{name}{len(repository.commits)}".encode()).hexdigest()
        repository.commits[sha] = {path: content for path, content in {**before, **files}.items() if path not in gone}
        return sha


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: str, status: int = 404) -> None:
        self.answer({"error": code}, status, X_Error_Code=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.server.asked.append("/".join(parts))
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.refuse("RepoNotFound", 401)
        if parts[0] != "api":
            _, revision, file = parts[2], parts[3], "/".join(parts[4:])
            content = repository.commits[revision].get(file)
            if content is None:
                return self.refuse("EntryNotFound")
            tag = hashlib.sha1(content).hexdigest()
            return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=revision)
        sha = repository.find(parts[5] if len(parts) > 5 else "main")
        if sha is None and len(parts) > 5:
            return self.refuse("RevisionNotFound")
        if len(parts) > 4 and parts[4] == "tree":
            files = repository.commits[str(sha)]
            return self.answer(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in files.items()
                ]
            )
        files = repository.commits[sha] if sha else {}
        siblings = [{"rfilename": path} for path in files]
        return self.answer({"id": name, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []})

    def do_POST(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append("/".join(parts))
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.refuses:
            return self.answer({"error": "read-only token"}, 403)
        if parts[1:] == ["validate-yaml"]:
            return self.answer({"errors": [], "warnings": []})
        if parts[1:] == ["repos", "create"]:
            wish = json.loads(body)
            name = f"{wish['organization']}/{wish['name']}"
            status = 409 if name in self.server.repositories else 200
            private = wish.get("private", False) or wish.get("visibility") == "private"
            self.server.repositories.setdefault(name, Repository(private))
            return self.answer({"url": f"{self.server.address}/{name}", "id": name}, status)
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        lines = [json.loads(line) for line in body.splitlines()]
        sent = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        gone = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
        sha = self.server.commit(name, {path: base64.b64decode(content) for path, content in sent.items()}, gone)
        return self.answer(
            {"commitUrl": f"{self.server.address}/{name}/commit/{sha}", "commitOid": sha, "success": True}
        )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of one's own, with an empty cache and a token."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def read_artifact(run: RunResult) -> dict[str, bytes]:
    return {name: (run.out / name).read_bytes() for name in ARTIFACT_FILES if (run.out / name).exists()}


def test_what_is_pushed_is_loaded_again(hub: Hub, trained: RunResult) -> None:
    url = falconet.push(trained.out, "jane/digits-lenet", private=True)
    (sha,) = hub.repositories["jane/digits-lenet"].commits
    assert url.endswith(f"jane/digits-lenet/commit/{sha}")
    assert hub.tokens == {"Bearer hf_secret"}
    stored = hub.repositories["jane/digits-lenet"]
    assert stored.private
    # Neither checkpoints nor the run's configuration.
    assert stored.commits[sha] == read_artifact(trained)
    assert (trained.out / "config.yaml").exists()
    loaded = falconet.load_artifact("hf:jane/digits-lenet")
    local = falconet.load_artifact(trained.out)
    assert loaded.config == local.config
    assert all(np.array_equal(loaded.weights[name], weights) for name, weights in local.weights.items())
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors"} <= set(MODEL_FILES)


def test_a_revision_is_pinned(hub: Hub, trained: RunResult) -> None:
    first = hub.commit("jane/m", read_artifact(trained))
    hub.commit("jane/m", {"model.safetensors": b"other"})
    assert falconet.load_artifact(f"hf:jane/m@{first}").config.architecture == "lenet_relu"
    with pytest.raises(ArtifactError, match="damaged"):
        falconet.load_artifact("hf:jane/m")
    with pytest.raises(HubError, match=r"^hf:jane/m@v9: no such revision"):
        falconet.load_artifact("hf:jane/m@v9")


def test_what_has_been_fetched_is_read_offline(hub: Hub, trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("jane/m", read_artifact(trained))
    falconet.load_artifact("hf:jane/m")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert falconet.load_artifact("hf:jane/m").config.architecture == "lenet_relu"
    with pytest.raises(HubError, match=r"hf:jane/other: the hub cannot be asked .*check the network"):
        falconet.load_artifact("hf:jane/other")


def test_a_foreign_model_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    hub.commit("jane/bert", FOREIGN)
    hub.commit("jane/empty", {"README.md": b"-"})
    for name in ("jane/bert", "jane/empty"):
        with pytest.raises(ArtifactError, match=f"hf:{name}: wanted a model of Falconet .* found another"):
            falconet.load_artifact(f"hf:{name}")
    assert not any("safetensors" in path for path in hub.asked)


def test_an_unknown_repository_is_one_line(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "hf:jane/nothing", __file__]) == 1
    assert capsys.readouterr().err == (
        "falconet: hf:jane/nothing: no such model on the hub, or a private one: check the name, or log in (hf auth "
        "login) or set HF_TOKEN\n"
    )


def test_pushing_without_a_token_says_what_to_do(
    hub: Hub, trained: RunResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert run(["push", str(trained.out), "jane/m"]) == 1
    assert "needs a token of the Hugging Face Hub that may write: log in (hf auth login)" in capsys.readouterr().err
    assert not hub.asked


def test_a_token_that_may_not_write_is_refused(hub: Hub, trained: RunResult) -> None:
    hub.refuses = True
    with pytest.raises(HubError, match=r"jane/m: the hub refused .*check the token's rights"):
        falconet.push(trained.out, "jane/m")


def test_what_should_be_private_is_not_pushed_in_public(hub: Hub, trained: RunResult) -> None:
    hub.repositories["jane/m"] = Repository(private=False)
    with pytest.raises(HubError, match="there already and public"):
        falconet.push(trained.out, "jane/m", private=True)
    assert not hub.repositories["jane/m"].commits
    falconet.push(trained.out, "jane/m")
    assert hub.repositories["jane/m"].commits


def test_an_altered_model_is_not_pushed(hub: Hub, trained: RunResult, tmp_path: Path) -> None:
    shutil.copytree(trained.out, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="altered"):
        falconet.push(tmp_path / "copy", "jane/m")
    assert not hub.asked


def test_the_verb_prints_one_object(hub: Hub, trained: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["push", str(trained.out), "jane/m", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (sha,) = hub.repositories["jane/m"].commits
    assert printed == {"repository": "jane/m", "url": f"{hub.address}/jane/m/commit/{sha}"}
    assert run(["evaluate", "hf:jane/m", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == trained.test.accuracy


@pytest.mark.parametrize("name", ["jane", "jane/", "/m", "a/b/c", "jane/../m", "jane/m m", "hf:jane/m", "jané/m", ""])
def test_a_name_that_is_none_is_wrong_usage(name: str, trained: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["push", str(trained.out), name]) == 2
    assert "wanted owner/name" in capsys.readouterr().err
    if name and not name.startswith("hf:"):
        with pytest.raises(PathError, match="wanted owner/name"):
            check_artifact(f"hf:{name}")


@pytest.mark.parametrize("name", ["jane/m--n", "jane/..m", "jane/m.git", "-jane/m", "jane/m-", "jane/" + "a" * 120])
def test_a_name_that_the_hub_cannot_have_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The pattern of names lets it pass, huggingface_hub does not."""
    assert run(["evaluate", f"hf:{name}", "digits"]) in {1, 2}
    out, err = capsys.readouterr()
    assert out == ""
    assert "wanted owner/name" in err
    assert "unexpected" not in err
    assert err.count("\n") == 1


def test_names_of_models() -> None:
    assert parse_model("hf:jane/m") == ("jane/m", None)
    assert parse_model(Path("hf:jane/m@v1")) == ("jane/m", "v1")
    with pytest.raises(PathError, match="after @, found nothing"):
        parse_model("hf:jane/m@")
    with pytest.raises(PathError, match=r"a model of the Hugging Face Hub is written hf:jane/m$"):
        check_artifact("jane/m")


def test_a_folder_that_is_no_model_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(PathError, match="wanted a trained model"):
        falconet.push(tmp_path, "jane/m")
    with pytest.raises(PathError, match="no such folder"):
        falconet.push(tmp_path / "typo", "jane/m")
    with pytest.raises(PathError, match="wanted a folder of this machine"):
        falconet.push("hf:jane/m", "jane/m")


def test_without_the_extra(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (lambda: falconet.push(trained.out, "jane/m"), lambda: falconet.load_artifact("hf:jane/m")):
        with pytest.raises(MissingExtraError, match=r"falconet\[hub\]"):
            call()


def test_the_hub_understands_the_card(trained: RunResult) -> None:
    card = ModelCard.load(trained.out / "README.md")
    assert metadata_load(trained.out / "README.md") == card.data.to_dict()
    results = card.data.eval_results
    assert results is not None
    assert all(isinstance(result, EvalResult) for result in results)
    values = {result.metric_type: result.metric_value for result in results}
    test = trained.test
    assert values == {"accuracy": test.accuracy, "recall": test.macro_recall, "f1": test.macro_f1}
    assert {(result.task_type, result.dataset_name, result.dataset_split) for result in results} == {
        ("image-classification", "digits", "test")
    }
    assert card.data.model_name == trained.report.name


@pytest.mark.parametrize("name", ["README.md", "report.html", "metrics.json"])
def test_what_speaks_of_other_weights_is_not_pushed(name: str, hub: Hub, trained: RunResult, tmp_path: Path) -> None:
    shutil.copytree(trained.out, tmp_path / "copy")
    path = tmp_path / "copy" / name
    digest = hashlib.sha256((trained.out / "model.safetensors").read_bytes()).hexdigest()
    assert path.read_text(encoding="utf-8").count(digest) == 1
    path.write_text(path.read_text(encoding="utf-8").replace(digest, digest[::-1]), encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{name} does not say that it speaks of these weights"):
        falconet.push(tmp_path / "copy", "jane/m")
    assert not hub.asked


def write_source(folder: Path, source: str) -> None:
    """Let `config.json` say where the data are, as earlier versions wrote it."""
    path = folder / "config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["provenance"]["data"]["source"] = source
    path.write_text(json.dumps(record), encoding="utf-8")


def test_paths_of_this_machine_stay_here(hub: Hub, trained: RunResult, tmp_path: Path) -> None:
    shutil.copytree(trained.out, tmp_path / "copy")
    write_source(tmp_path / "copy", "/home/jane doe/private/digits")
    falconet.push(tmp_path / "copy", "jane/m")
    (commit,) = hub.repositories["jane/m"].commits.values()
    assert commit == read_artifact(trained)
    # What is here stays as it is: the data are found by it.
    assert falconet.load_artifact(tmp_path / "copy").config.provenance.data.source == "/home/jane doe/private/digits"


@pytest.mark.parametrize("name", ["README.md", "report.html", "metrics.json"])
def test_a_card_with_the_path_of_the_data_is_not_pushed(
    name: str, hub: Hub, trained: RunResult, tmp_path: Path
) -> None:
    shutil.copytree(trained.out, tmp_path / "copy")
    write_source(tmp_path / "copy", "/home/jane/digits")
    path = tmp_path / "copy" / name
    path.write_text(path.read_text(encoding="utf-8") + "\n/home/jane/digits", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{name} holds /home/jane/digits, .* remove it, or train again"):
        falconet.push(tmp_path / "copy", "jane/m")
    # The path of the run's own settings, which config.json does not have any more.
    write_source(tmp_path / "copy", "digits")
    (tmp_path / "copy" / "config.yaml").write_text("source: /home/jane/digits\nseed: 0\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{name} holds /home/jane/digits"):
        falconet.push(tmp_path / "copy", "jane/m")
    assert not hub.asked


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "config.json"])
def test_nothing_is_pushed_that_a_link_leads_to(name: str, hub: Hub, trained: RunResult, tmp_path: Path) -> None:
    shutil.copytree(trained.out, tmp_path / "copy")
    (tmp_path / "secret").write_bytes((trained.out / name).read_bytes())
    (tmp_path / "copy" / name).unlink()
    (tmp_path / "copy" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match=f"{name} is damaged: a link, not a regular file"):
        falconet.push(tmp_path / "copy", "jane/m")
    assert not hub.asked


def test_what_was_pushed_of_earlier_weights_goes_in_the_same_commit(
    hub: Hub, trained: RunResult, tmp_path: Path
) -> None:
    hub.commit("jane/m", {"model.fnet": b"earlier", "report.html": b"of the earlier", "notes.txt": b"theirs"})
    shutil.copytree(trained.out, tmp_path / "copy")
    (tmp_path / "copy" / "report.html").unlink()
    falconet.push(tmp_path / "copy", "jane/m")
    stored = list(hub.repositories["jane/m"].commits.values())[-1]
    assert stored.keys() == (read_artifact(trained).keys() | {"notes.txt"}) - {"report.html"}
    assert stored["model.safetensors"] == (trained.out / "model.safetensors").read_bytes()
