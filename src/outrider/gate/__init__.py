"""`outrider gate`: has a drafter become worse? Record a baseline, check against it, compare drafters."""
