"""Policies: which version each system is to have, by which steps, and when. No input, no output."""
