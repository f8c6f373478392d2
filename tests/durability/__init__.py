"""What must survive: processes killed, frozen and restarted, for real."""
