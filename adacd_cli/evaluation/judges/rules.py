"""Reads keyword.yaml: the rules of the `keyword` judge, compiled, with their weights. The file explains its own
form. Interpreting the rules is left to keyword.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["refusals", "cues", "question_dependent_cues"]
_KINDS: tuple[Kind, ...] = ("refusals", "cues", "question_dependent_cues")
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


@dataclass(frozen=True, slots=True)
class Script:
    """A script's letters, how many letters each stands for, and those that no language with rules has."""

    letters: str
    weight: int = 1
    foreign: str = "(?!)"


class RuleBook:
    """All that keyword.yaml holds: the rules in its order, named patterns, words and weights. `frequent` has the
    languages in which a word is frequent; `unread`, those that no rules read."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._fragments: dict[str, str] = {}
        for name, given in found["fragments"].items():  # each may use those before it
            alternatives = self._expand([given] if isinstance(given, str) else given)
            self._fragments[name] = f"(?:{'|'.join(alternatives)})"
        self.rules = tuple(self._rule(kind, entry) for kind in _KINDS for entry in found[kind])
        self.computed: Mapping[str, float] = found["computed"]
        self.unfitted: Mapping[str, float] = found["unfitted"]
        self.fitted: Mapping[str, float] = found["fitted"]
        self.texts = self._compiled(found["texts"])
        self.questions = self._compiled(found["questions"])
        self.context = self._compiled({**found["context"], "remarks": found["remarks"]})
        self.wrappers = self._compiled(found["wrappers"], re.IGNORECASE | re.MULTILINE)
        own = {code: entry.pop("words", "") for code, entry in found["languages"].items()}
        self.languages = {code: self._compiled(entry) for code, entry in found["languages"].items()}
        self.frequent: dict[str, tuple[str, ...]] = {}
        for code, words in {"en": found["english_words"], **own, **found["other_languages"]}.items():
            for word in dict.fromkeys(words.split()):
                self.frequent[word] = (*self.frequent.get(word, ()), code)
        self.unread = frozenset(found["other_languages"])
        self.english_trigrams = frozenset(found["english_trigrams"].split())
        self.common_words: frozenset[str] = frozenset(found["common_words"].split())
        self.remarked = frozenset(found["remarked"])
        self.answered = frozenset(found["answered"])
        self.scripts = {code: Script(**entry) for code, entry in found["scripts"].items()}
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

    @cached_property
    def priors(self) -> Mapping[str, float]:
        """What every signal is thought to weigh; fitted weights stay near it."""
        late = {later(rule.name): rule.later for rule in self.rules if rule.later is not None}
        return {**self.computed, **self.unfitted, **{rule.name: rule.weight for rule in self.rules}, **late}

    @cached_property
    def refusals(self) -> frozenset[str]:
        """The signals of a refusal in so many words: it is one, whatever a sample says."""
        own = [rule.name for rule in self.rules if rule.kind == "refusals"]
        return frozenset({*own, *map(later, own)} & self.priors.keys() | {"refuses", "answers no"})

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The signals whose weight is not fitted."""
        return self.refusals.union(self.unfitted, (rule.name for rule in self.rules if not rule.fit))

    @cached_property
    def weights(self) -> Mapping[str, float]:
        return {**self.priors, **self.fitted}


def later(name: str) -> str:
    """The name of a rule's signal when it is found after the opening."""
    return f"{name}, later"


@lru_cache(maxsize=1)
def rule_book() -> RuleBook:
    """The rules that come with adacd."""
    text = Path(__file__).with_name("keyword.yaml").read_text(encoding="utf-8")
    return RuleBook(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
