"""A server that speaks chat completions and breaks on request."""
