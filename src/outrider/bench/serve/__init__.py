"""`outrider bench serve`: load on a running server, and what it was like for the clients."""
