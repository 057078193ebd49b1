"""The queue classes, blocking and asyncio, with every kind of client."""
