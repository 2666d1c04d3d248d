"""Models on the Hugging Face Hub: down and up. Needs the extra `hub`, which is imported where it is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from falconet.catalog import HUB_PREFIX
from falconet.errors import ArtifactError, HubError, MissingExtraError
from falconet.model_files import CODED_FILE, CONFIG_FILE, MODEL_FILES, WEIGHTS_FILE, parse_model
from falconet.storage import read_json

MODEL = f"{CONFIG_FILE} and {WEIGHTS_FILE} or {CODED_FILE}"
_LOGIN = "log in (hf auth login) or set HF_TOKEN"


def fetch_model(name: str) -> Path:
    """Return a folder with the files of `hf:owner/name` or `hf:owner/name@revision` that are needed to use it.

    The revision (by default the newest commit) is looked up once, and all files are of that commit; they stay in the
    hub's own cache, from which they come when there is no network. Raises MissingExtraError, HubError, and
    ArtifactError where what is there is no model of Falconet, before its weights are fetched.
    """
    repository, revision = parse_model(name)
    _check_extra(f"loading {HUB_PREFIX}{repository}")
    from huggingface_hub import snapshot_download

    with _translated_errors(name):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[CONFIG_FILE]))
    if not (folder / CONFIG_FILE).is_file() or "format_version" not in read_json(folder / CONFIG_FILE):
        raise ArtifactError(f"{name}: wanted a model of Falconet ({MODEL}), found another")
    with _translated_errors(name):
        # The folder is called after its commit.
        return Path(snapshot_download(repository, revision=folder.name, allow_patterns=list(MODEL_FILES)))


def upload(contents: Mapping[str, bytes], owned: Set[str], repository: str, private: bool) -> str:
    """Commit files by their names; return the commit's address.

    Of the names that are `owned`, those without content go in the same commit, so that nothing there describes what was
    there before. Raises MissingExtraError, and HubError, also where the repository should be private and is already
    public.
    """
    _check_extra(f"pushing to {repository}")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if get_token() is None:
        raise HubError(f"pushing to {repository} needs a token of the Hugging Face Hub that may write: {_LOGIN}")
    api = HfApi()
    with _translated_errors(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        known = api.model_info(repository)
        if private and not known.private:
            raise HubError(
                f"{repository} is there already and public: make it private on the hub, or leave --private out"
            )
        gone = (owned - contents.keys()) & {file.rfilename for file in known.siblings or ()}
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, content) for name, content in contents.items()),
                *(CommitOperationDelete(name) for name in sorted(gone)),
            ],
            commit_message="Push with falconet",
        )
    return str(commit.commit_url)


def _check_extra(purpose: str) -> None:
    """Raise MissingExtraError without `huggingface_hub`."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtraError("hub", purpose)


@contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong with the hub into HubError."""
    from huggingface_hub import errors as package

    errors: Any = package  # It re-exports the HTTP library's own error, of whichever library it uses.
    try:
        with _silence():
            yield
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{name}: no such revision; wanted a branch, a tag or a commit of the repository") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(f"{name}: no such model on the hub, or a private one: check the name, or {_LOGIN}") from error
    except errors.HfHubHTTPError as error:
        raise HubError(f"{name}: the hub refused ({_shorten(error)}); check the token's rights, or {_LOGIN}") from error
    except errors.HFValidationError as error:
        raise HubError(f"{name}: the hub has no such names ({_shorten(error)}); wanted owner/name") from error
    except (errors.HTTPError, OSError) as error:
        raise HubError(f"{name}: the hub cannot be asked ({_shorten(error)}); check the network") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the package's progress bars off the screen, except where the environment asks for them."""
    import huggingface_hub

    utils: Any = huggingface_hub.utils
    if huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _shorten(error: Any) -> str:
    """Return the first line of an error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
