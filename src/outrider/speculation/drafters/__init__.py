"""One drafter a file; the file's name is the `method`. Each exports a class `Drafter`."""
