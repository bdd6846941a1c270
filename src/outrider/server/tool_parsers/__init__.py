"""One file per tool-call format; --tool-call-parser takes the file's name."""
