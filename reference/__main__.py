"""`python -m reference`: from data on disk to trained models, segmentations and tables."""

from __future__ import annotations

import typer

from reference.commands.check import check
from reference.commands.evaluate import evaluate
from reference.commands.predict import predict
from reference.commands.prepare import prepare
from reference.commands.summary import summary
from reference.commands.train import train

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The coarse-to-fine segmentation of small organs.")
app.command()(prepare)
app.command()(check)
app.command()(summary)
app.command()(train)
app.command()(predict)
app.command()(evaluate)

if __name__ == "__main__":
    app()
