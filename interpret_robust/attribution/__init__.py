"""Maps of what a decision rests on, and how they are shown and controlled."""
