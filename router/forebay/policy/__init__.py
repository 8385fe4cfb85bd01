"""Pure decisions. Nothing here reads a clock, a socket, a random number or a log."""
