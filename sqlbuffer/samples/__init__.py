"""From a Python object to its hash, its bytes and its readable text, and back."""
