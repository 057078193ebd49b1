"""Traces and metrics: what is recorded of queues and workers, blocking and asyncio, and what items carry."""
