"""What the project says of itself: documentation, examples, benchmarks, packaging."""
