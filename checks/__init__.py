"""Long checks that the tests have no time for; each is a command, and a target of make."""
