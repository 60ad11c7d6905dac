"""The command line: one module per command, which parses options, calls one library function and renders the result."""
