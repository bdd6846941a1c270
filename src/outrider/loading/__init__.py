"""Loads the files of a model directory into weights; an error names each one not found or not used."""
