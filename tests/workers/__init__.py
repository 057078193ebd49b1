"""Workers: their loop, how they stop, and which failures they survive."""
