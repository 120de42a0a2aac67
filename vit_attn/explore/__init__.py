"""Live questions about a network and its pictures: a local page, and the same page as one file."""
