"""The paper, and nothing else: steps 1 to 3."""
