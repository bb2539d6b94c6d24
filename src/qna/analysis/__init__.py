"""What a layer or a model costs, and what it looks at."""
