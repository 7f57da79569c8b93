"""Measurements and comparisons over several runs: benchmarks, sweeps, the paper's tables, the demo."""
