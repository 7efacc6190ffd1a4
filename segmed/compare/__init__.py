"""Many methods on the same test cases, of which those that are not done yet are run."""
