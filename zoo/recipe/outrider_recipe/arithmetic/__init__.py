"""Grade-school word problems, written for this project: families of stories, their numbers, their worked answers.

Families in `stories/heldout.txt` and a tenth of all number tuples are never trained on.
"""
