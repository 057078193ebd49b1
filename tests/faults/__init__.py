"""Fault injection: with every fault, redisq keeps its guarantees, and a naive queue as the control does not."""
