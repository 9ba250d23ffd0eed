"""Benchmarks: what research-kit costs, as ratios against what a user would use instead."""
