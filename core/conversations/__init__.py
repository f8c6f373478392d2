"""Threads of one person: what was said, what was shown, the files that came along, and what was thought of it."""
