"""`python -m reference`: from data on disk to trained models, segmentations and tables."""

from __future__ import annotations

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The coarse-to-fine segmentation of small organs.")

if __name__ == "__main__":
    app()
