"""`python -m tools.demo.profile FOLDER` writes safe.txt, unsafe.txt and neutral.txt: prompts of the demo's own
corpus, none of them held out. Its bundled profile is made of them:

    adacd fit -m demo --safe F/safe.txt --unsafe F/unsafe.txt --neutral F/neutral.txt --max-lost 0.045
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.demo.dialogues import DialogueSource
from tools.demo.grammar import Grammar
from tools.demo.prompts import kept_out

_COUNTS = {"trigger": ("safe", 500), "harmful": ("unsafe", 500), "neutral": ("neutral", 150)}
SMALL_TALK = (
    "hi",
    "Hello!",
    "hey",
    "Good morning",
    "How are you?",
    "Thanks!",
    "thank you",
    "bye",
    "What's up?",
)


def main(folder: Path) -> None:
    source = DialogueSource(Grammar(), 7, kept_out())
    folder.mkdir(parents=True, exist_ok=True)
    for kind, (name, count) in _COUNTS.items():
        drawn = dict.fromkeys(SMALL_TALK if kind == "neutral" else ())
        while len(drawn) < count:
            drawn[source._question(kind).question] = None
        (folder / f"{name}.txt").write_text("\n".join(drawn) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
