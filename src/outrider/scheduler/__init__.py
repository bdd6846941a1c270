"""Who runs in the next step, and with which blocks. Host only: no torch here."""
