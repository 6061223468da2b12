"""Guards of compiled programs: the Python state that a trace depended on, compared before every step."""
