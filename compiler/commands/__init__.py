"""Commands: the command line over the typed options, and what it prints."""
