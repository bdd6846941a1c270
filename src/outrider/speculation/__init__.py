"""Drafters guess the next tokens. A wrong guess costs time, never a token."""
