"""What an endpoint replied, kept on disk, so that a rerun asks nothing twice.

One SQLite file: a reply is written as it comes, so a run that is killed keeps what it had, and two runs may
share it. It holds hashes of the questions and answers, never their texts, and nothing that failed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from adacd_cli.errors import OutputError

FILE_NAME = "judge-replies.sqlite3"
_LOCK_SECONDS = 30.0  # how long to wait for another run's write to end


def reply_key(model: str, template: str, prompt: str, completion: str) -> str:
    """The name a reply is kept by: a hash of the judging model, the template's version and the exchange."""
    # as ASCII JSON, which lone surrogates survive and in which no two lists look the same
    return hashlib.sha256(json.dumps([model, template, prompt, completion]).encode("ascii")).hexdigest()


class ReplyCache:
    """Replies by key in a folder, which is made where it is missing; None keeps nothing.

    It may be made in one thread and used in another, by one thread at a time. OutputError where the file cannot be
    made, read or written; also raised by `get` and `put`.
    """

    def __init__(self, folder: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        if folder is None:
            return
        self._path = folder.expanduser() / FILE_NAME
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failed("used", error) from error
        # A reply survives the end of the program without waiting for the disk; a power cut may cost the file,
        # which holds nothing that cannot be asked again. BEGIN: the file can be written, found out now.
        for statement in (
            "PRAGMA synchronous = OFF",
            "CREATE TABLE IF NOT EXISTS judge_replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, "
            "model TEXT NOT NULL, template TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
            "BEGIN IMMEDIATE",
            "ROLLBACK",
        ):
            self._run("used", statement)

    def get(self, key: str) -> str | None:
        """The reply kept under the key; None where there is none."""
        rows = self._run("read", "SELECT reply FROM judge_replies WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, reply: str, *, model: str, template: str) -> None:
        """Keeps a reply, at once and for good."""
        readable = reply.encode("utf-8", "replace").decode("utf-8")
        insert = "INSERT OR REPLACE INTO judge_replies (key, reply, model, template) VALUES (?, ?, ?, ?)"
        self._run("written", insert, key, readable, model, template)

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._database is not None:
            self._database.close()

    def _run(self, verb: str, statement: str, *values: str) -> list[Any]:
        if self._database is None:
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if verb == "used":
                self._database.close()
            raise self._failed(verb, error) from error

    def _failed(self, verb: str, error: Exception) -> OutputError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return OutputError(
            f"The judge's cache {self._path} cannot be {verb}: {reason.rstrip('.')}.",
            "Name another folder for it, or move that file away.",
        )
