"""StreamReader and StreamWriter, and what opens them."""
