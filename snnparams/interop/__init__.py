"""Networks of other libraries and file formats."""
