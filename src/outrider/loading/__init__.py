"""From a model directory to filled weights: every weight found, every tensor used, or an error that says which."""
