"""The chat's agent: which tools it has, what they receive, what it is told, how it answers."""
