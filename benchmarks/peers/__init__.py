"""The same job through redisq and through other queues: `python -m benchmarks.peers`, or `run.run` from a program.

One file for each peer; they run in virtual environments of their own, so this package imports none of them, nor redisq.
"""
