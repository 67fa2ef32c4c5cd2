"""A hospital's day against a whole Inlay: its plan, the people and systems of it, and what each stage took."""
