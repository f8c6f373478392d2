"""Large payloads, kept once and passed by reference."""
