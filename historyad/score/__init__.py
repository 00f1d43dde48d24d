"""Companions of D_TV, their sum, and the decision."""
