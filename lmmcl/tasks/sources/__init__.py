"""The data of a skill or benchmark of your own: its sources, their weights, and the part that is held back."""
