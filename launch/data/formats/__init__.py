"""Files as hospitals have them: stored values of any depth, windows to look through, and back to a file."""
