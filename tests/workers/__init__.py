"""Workers: their loop, how they end, what they survive."""
