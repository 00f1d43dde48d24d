"""HTTP service that scores images and vectors with a fitted model, and its page."""
