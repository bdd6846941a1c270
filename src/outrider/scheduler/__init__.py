"""The scheduler: chooses the requests of each step and assigns their KV blocks. Host only: no torch here."""
