"""What a paper needs of a sweep: a table in LaTeX, a paragraph on methods, and a zip that repeats it."""
