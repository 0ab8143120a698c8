"""Benchmarks; each is one command, `python -m benchmarks.<name>`, that writes to benchmarks/results/."""
