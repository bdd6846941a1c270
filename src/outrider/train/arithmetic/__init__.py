"""Grade-school word problems, written here: families of stories, their numbers, their worked answers.

Families in `stories_heldout.py` and a tenth of all number tuples are never trained on.
"""
