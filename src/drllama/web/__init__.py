"""The review page: server-rendered, on this machine alone, reached with a token."""
