"""Long checks that the tests have no time for. Each is a command and a target of make."""
