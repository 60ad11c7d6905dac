"""The command line: one file a command. It parses, calls one function and hands the result to render."""
