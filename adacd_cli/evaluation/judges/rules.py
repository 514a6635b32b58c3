"""Reads keyword.yaml: the rules of the `keyword` judge, compiled, with their weights. The file explains its own
form. Interpreting the rules is left to keyword.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

Kind = Literal["refusals", "cues", "question_dependent_cues"]
_FRAGMENT = re.compile(r"<([A-Z_]+)>")


@dataclass(frozen=True, slots=True)
class Rule:
    """A named signal; see the head of keyword.yaml for what its attributes mean."""

    name: str
    kind: Kind
    weight: float
    patterns: tuple[str, ...]
    learned: Mapping[str, tuple[str, ...]]
    later: float | None = None
    first: bool = False
    whole: bool = False
    fit: bool = True
    tale: str = ""
    asks: str = ""

    def without(self, model: str) -> re.Pattern[str]:
        """All patterns as one, those learned from the model left out; nothing matches where none is left."""
        learned = [one for name, own in self.learned.items() if name != model for one in own]
        return re.compile("|".join([*self.patterns, *learned]) or r"(?!)")


class RuleBook:
    """All that keyword.yaml holds: the rules in its order, named patterns, words and weights. `frequent` has the
    languages in which a word is frequent; `unread`, those that no rules read. `priors` are what every signal is
    thought to weigh, near which the fitted `weights` stay; `fixed` are the signals whose weight is not fitted,
    `refusals` those of a refusal in so many words: it is one, whatever a sample says."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._fragments: dict[str, str] = {}
        for name, given in found["fragments"].items():  # each may use those before it
            alternatives = self._expand([given] if isinstance(given, str) else given)
            self._fragments[name] = f"(?:{'|'.join(alternatives)})"
        self.rules = tuple(self._rule(kind, entry) for kind in get_args(Kind) for entry in found[kind])
        late = {later(rule.name): rule.later for rule in self.rules if rule.later is not None}
        own = {rule.name: rule.weight for rule in self.rules}
        self.fitted: Mapping[str, float] = found["fitted"]
        self.priors: Mapping[str, float] = {**found["computed"], **found["unfitted"], **own, **late}
        self.weights: Mapping[str, float] = {**self.priors, **self.fitted}
        spoken = [rule.name for rule in self.rules if rule.kind == "refusals"]
        known = {*spoken, *map(later, spoken)} & self.priors.keys()
        self.refusals = frozenset(known | {"refuses", "answers no"})
        unfitted = {rule.name for rule in self.rules if not rule.fit}.union(found["unfitted"])
        self.fixed = self.refusals | unfitted
        self.texts = self._compiled(found["texts"])
        self.questions = self._compiled(found["questions"])
        self.context = self._compiled({**found["context"], "remarks": found["remarks"]})
        self.wrappers = self._compiled(found["wrappers"], re.IGNORECASE | re.MULTILINE)
        words = {code: entry.pop("words", "") for code, entry in found["languages"].items()}
        self.languages = {code: self._compiled(entry) for code, entry in found["languages"].items()}
        self.frequent: dict[str, tuple[str, ...]] = {}
        for code, listed in {"en": found["english_words"], **words, **found["other_languages"]}.items():
            for word in dict.fromkeys(listed.split()):
                self.frequent[word] = (*self.frequent.get(word, ()), code)
        self.unread = frozenset(found["other_languages"])
        self.english_trigrams = frozenset(found["english_trigrams"].split())
        self.common_words: frozenset[str] = frozenset(found["common_words"].split())
        self.remarked, self.answered = frozenset(found["remarked"]), frozenset(found["answered"])
        # a script's letters, how many letters each stands for, and those that no language with rules has
        usual = {"weight": 1, "foreign": "(?!)"}
        self.scripts = {code: {**usual, **entry} for code, entry in found["scripts"].items()}
        self.text_keys: list[str] = found["text_keys"].split()
        self.spelling = [(re.compile(pattern), full) for pattern, full in found["spelling"].items()]

    def _expand(self, patterns: Iterable[str]) -> tuple[str, ...]:
        return tuple(_FRAGMENT.sub(lambda match: self._fragments[match[1]], each) for each in patterns)

    def _compiled(self, named: Mapping[str, list[str]], flags: int = 0) -> dict[str, re.Pattern[str]]:
        return {name: re.compile("|".join(self._expand(given)), flags) for name, given in named.items()}

    def _rule(self, kind: Kind, entry: dict[str, Any]) -> Rule:
        learned = {model: self._expand(given) for model, given in entry.get("learned", {}).items()}
        patterns = self._expand(entry.get("patterns", ()))
        return Rule(**{**entry, "kind": kind, "patterns": patterns, "learned": learned})


def later(name: str) -> str:
    """The name of a rule's signal when it is found after the opening."""
    return f"{name}, later"


_TEXT = Path(__file__).with_name("keyword.yaml").read_text(encoding="utf-8")
RULES = RuleBook(yaml.load(_TEXT, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
