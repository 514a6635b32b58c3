"""`adacd chat`: a conversation at the terminal, or from a script of messages and commands on stdin."""

from adacd_cli.cli.chat.command import command

__all__ = ["command"]
