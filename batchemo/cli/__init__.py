"""The command line: commands, messages, progress, exit codes."""
