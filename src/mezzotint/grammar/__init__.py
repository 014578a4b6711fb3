"""Answers that must match a grammar: choices, a regular expression, or a JSON schema, kept satisfiable while tokens are committed in any order."""
