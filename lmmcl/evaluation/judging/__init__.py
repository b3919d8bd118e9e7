"""Answers judged by a model: prompts, verdicts, the two ways to ask, and what was asked before."""
