"""What is asked for: settings with their parsers, recipes, options of the command line."""
