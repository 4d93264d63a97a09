"""Constrained answers: grammars, and what they allow next."""
