"""One file a loss: the function and its module."""
