"""Whether what was compiled still holds: what a step depends on, noted once and compared before every step."""
