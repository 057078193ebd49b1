"""Clients in other languages, and queues that several languages share."""
