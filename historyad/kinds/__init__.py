"""What differs between kinds of input."""
