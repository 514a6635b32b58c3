"""Prompts in, answers out: what the commands that decode and a program that imports adacd share."""

from adacd_cli.answers.ask import Answer, generate, stream

__all__ = ["Answer", "generate", "stream"]
