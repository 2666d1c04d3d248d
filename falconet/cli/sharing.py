"""The verb push."""

from __future__ import annotations

from typing import Annotated

import typer

from falconet.cli.app import Debug, Json, ModelFolder, app


@app.command()
def push(
    model: ModelFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only its owner sees.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upload a trained model to the Hugging Face Hub, report included, which shows some test samples."""
    from falconet.model_files import check_artifact, check_repository

    check_repository(repository)
    check_artifact(model)
    from falconet import artifact, terminal

    url = artifact.push(model, repository, private=private)
    if json:
        terminal.print_json({"repository": repository, "url": url})
        return
    terminal.print_line(f"pushed to {url}; falconet predict hf:{repository} FILE uses it")
