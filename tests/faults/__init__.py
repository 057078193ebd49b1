"""Everything around redisq breaks, with seeds; each promise is held, and a naive queue beside it is not."""
