"""Plain data: config, requests, plans, outputs, errors. No torch."""
