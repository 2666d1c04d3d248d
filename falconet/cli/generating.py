"""The verb generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from falconet.cli.app import Assignments, DataRoot, Debug, Follow, Json, Source, Strict, app, ask_data


@app.command()
def generate(
    source: Source,
    out: Annotated[Path, typer.Option(help="A new folder for images by class, manifest.json and nearest.png.")],
    per_class: Annotated[int, typer.Option(metavar="N", help="Number of images of each class.", min=1)] = 20,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training of the generator.", min=1)] = None,
    time: Annotated[str | None, typer.Option(metavar="T", help="Train no longer than 90s, 30m or 2h.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the generator's weights, batches and noise.", min=0)] = 0,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate images of each class, marked as synthetic, beside the nearest real ones."""
    from falconet.catalog import check_source
    from falconet.units import parse_time

    check_source(source)
    seconds = None if time is None else parse_time(time, "--time")
    asked = ask_data(settings, None, follow, strict)["data"]
    from falconet import terminal
    from falconet.generation import flow, generating
    from falconet.schema import to_mapping

    def tell(epoch: int, epochs: int, loss: float) -> None:
        if epoch in (1, epochs) or epoch % max(epochs // 10, 1) == 0:
            terminal.print_note(f"generator: epoch {epoch} of {epochs}, loss {loss:.4f}")

    config = flow.FlowConfig(epochs=epochs, seconds=seconds, seed=seed)
    done = generating.generate_images(
        source, out=out, per_class=per_class, config=config, data_root=data_root, settings=asked, watch=tell
    )
    if json:
        terminal.print_json({**to_mapping(done), "out": str(done.out)})
        return
    terminal.print_line(f"{done.images} images in {done.out}, after {done.steps} steps; look at {out / 'nearest.png'}")
    real = "" if done.held_out_nearest is None else f"; of real validation images {done.held_out_nearest:.3f}"
    terminal.print_line(f"median distance to the nearest training image: {done.nearest:.3f}{real}")
