"""The page of `app.py`: views of what a model finds, and what stands between them and untrusted input."""
