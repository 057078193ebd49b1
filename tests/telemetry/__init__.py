"""Traces and metrics of queues and workers, blocking and asyncio, and trace contexts in items."""
