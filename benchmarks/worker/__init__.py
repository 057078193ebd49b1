"""Workers, and asyncio clients that share round trips: against layout 1's workers, and against EVALSHA by hand."""
