"""From what a user types to one checked configuration: schema, composition, validation, identity."""
