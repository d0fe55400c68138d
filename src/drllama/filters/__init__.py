"""What looks at examples and tells which of them shouldn't stay as they are."""
