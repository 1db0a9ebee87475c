"""A model at home on the Hub: its card, and what of its folder goes up."""
