"""Verifiers: each watches an answer and says, typed and with reasons, whether it will do."""
