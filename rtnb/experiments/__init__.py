"""Prompt experiments: cases, variants, graders, runs and what they show."""
