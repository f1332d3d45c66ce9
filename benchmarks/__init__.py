"""Benchmarks: each prints its ratio to the peers that ran beside it."""
