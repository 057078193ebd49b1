"""Documentation, examples, benchmarks and packaging."""
