"""What `bailiwick` commands do when there is more to it than starting a process; `core.cli` has their options."""
