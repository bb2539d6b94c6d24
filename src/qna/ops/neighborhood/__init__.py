"""Neighbourhood attention: each query attends the window of keys around it."""
