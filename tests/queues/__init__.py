"""The queues as Python shows them, blocking and asyncio, with every kind of client."""
