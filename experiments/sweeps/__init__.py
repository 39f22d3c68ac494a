"""What a sweep is made of: trials, their launchers, the report."""
