"""People who sign in to the console: passwords, sessions, one-time links, OpenID Connect."""
