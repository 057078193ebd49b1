"""Tests of what redisq offers for others' tests, and of codecs for typed items."""
