"""Child processes that serve on a unix socket: start them, watch them, and leave none behind."""
