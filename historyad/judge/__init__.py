"""What a model is worth: metrics, drift, probe, explanations and the report."""
