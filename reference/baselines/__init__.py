"""Networks of others that the paper compares with and that fit no coarse-to-fine frame."""
