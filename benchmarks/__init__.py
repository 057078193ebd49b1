"""Benchmarks of redisq, and the recipes that it is measured against."""
