"""One file per form in which models reason; --reasoning-parser takes the file's name."""
