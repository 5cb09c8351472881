"""The questions: mean exit time and what belongs to it."""
