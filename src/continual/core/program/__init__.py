"""What a layer needs to say how it runs in a step program."""
