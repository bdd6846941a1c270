"""Languages that an output can be held to: what a request may ask for, and the form that llguidance gets."""
