"""What each operation sends and how its reply is read, without any I/O; both flavours perform it."""
