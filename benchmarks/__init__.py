"""Benchmarks of the library and of its worked example."""
