"""The report of a sweep: its files, what the terminal shows, and the command that makes it from the records."""
