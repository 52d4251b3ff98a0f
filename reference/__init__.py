"""The worked example: the coarse-to-fine segmentation of small organs with the multi-level structural loss."""
