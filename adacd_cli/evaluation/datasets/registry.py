"""What each known data set is: its rows, licence, files and place on the hub.

Facts only, nothing is read or loaded here. Prompts, splits and columns were taken from the sets' cards, their
makers' own scripts and public code that loads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from adacd_cli.evaluation.records import Label


@dataclass(frozen=True, slots=True)
class Split:
    """A split of a set on the hub.

    Attributes:
        name: as `load_dataset(split=…)` takes it.
        id_prefix: what the ids of its samples begin with; a number follows.
        label: of all its rows; None where the rows say it.
    """

    name: str
    id_prefix: str
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a set lies on the hub, and which columns hold what.

    Attributes:
        id: `owner/name`.
        revision: the commit whose columns these are.
        splits: in the order of the samples.
        config: as `load_dataset(name=…)` takes it; None for the only or the default one.
        prompt: column of the prompts.
        id_column: column of the ids; None where the rows are numbered from 0.
        category: column of the categories; None where there are none.
        label: column of the labels; None where split or category say them.
        unsafe_categories: the categories whose rows are unsafe; all others are safe.
        one_category: the category of every row where there is no column.
        gated: whether its terms must be accepted on its page first.
    """

    id: str
    revision: str
    splits: tuple[Split, ...]
    config: str | None = None
    prompt: str = "prompt"
    id_column: str | None = None
    category: str | None = None
    label: str | None = None
    unsafe_categories: frozenset[str] = frozenset()
    one_category: str = ""
    gated: bool = False

    @property
    def page(self) -> str:
        """Its page for a browser."""
        return f"https://huggingface.co/datasets/{self.id}"


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A set that has a name.

    Attributes:
        name: as `--dataset` takes it.
        safe, unsafe: rows of each label as published.
        licence: of the published set.
        files: names it may have in the folder of `--data`, the best first.
        hub: its place on the hub, or None.
        home: where it is published, for a set that is on no hub.
        only: the label that is kept of what is read; None for all.
        number_prefix: what ids begin with where a file has none.
    """

    name: str
    safe: int
    unsafe: int
    licence: str
    files: tuple[str, ...]
    hub: Hub | None = None
    home: str = ""
    only: Label | None = None
    number_prefix: str = ""

    @property
    def rows(self) -> int:
        """Of both labels."""
        return self.safe + self.unsafe

    @property
    def label(self) -> Label | None:
        """The label of every row, or None where there are both."""
        if self.safe and self.unsafe:
            return None
        return "safe" if self.safe else "unsafe"

    @property
    def source(self) -> str:
        """The hub id, or where else it is published."""
        return self.hub.id if self.hub else self.home


# The hub was out of reach where this was written: revisions and columns are those that its stored pages and
# public code name, and none was loaded. A column that is missing is reported by name.
_JBB = Hub(
    "JailbreakBench/JBB-Behaviors",
    "886acc352a31533ffbcf4ef22c744658688086fc",
    (Split("harmful", "jbb-harmful-", "unsafe"), Split("benign", "jbb-benign-", "safe")),
    config="behaviors",
    prompt="Goal",
    category="Category",
)

_SETS = (
    KnownSet(
        "xstest",
        safe=250,
        unsafe=200,
        licence="CC-BY-4.0",
        files=("xstest.jsonl",),
        hub=Hub(
            "Paul/XSTest",
            "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
            (Split("train", "xstest-"),),
            id_column="id",
            category="type",
            label="label",
        ),
    ),
    KnownSet(
        "orbench",
        safe=1319,
        unsafe=0,
        licence="CC-BY-4.0",
        files=("orbench.jsonl", "orbench-hard-1k.jsonl"),
        hub=Hub(
            "bench-llm/or-bench",
            "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272",
            (Split("train", "orbench-hard-", "safe"),),
            config="or-bench-hard-1k",
            category="category",
        ),
        number_prefix="orbench-hard-",
    ),
    KnownSet(
        "oktest",
        safe=300,
        unsafe=0,
        licence="not stated",
        files=("oktest.jsonl", "oktest.csv", "OKTest.csv"),
        home="InvokerStark/OverKill on GitHub",
    ),
    KnownSet(
        "advbench",
        safe=0,
        unsafe=520,
        licence="MIT",
        files=("advbench.jsonl",),
        hub=Hub(
            "walledai/AdvBench",
            "9d4730540082fa4017450b65ca1c0e1d8d30446e",
            (Split("train", "advbench-", "unsafe"),),
            one_category="harmful_behaviors",
            gated=True,
        ),
    ),
    KnownSet("jbb", safe=100, unsafe=100, licence="MIT", files=("jbb.jsonl",), hub=_JBB),
    # the name that the paper gives to JailbreakBench's harmful half
    KnownSet("jailbench", safe=0, unsafe=100, licence="MIT", files=("jbb.jsonl",), hub=_JBB, only="unsafe"),
    KnownSet(
        "strongreject",
        safe=0,
        unsafe=313,
        licence="MIT",
        files=("strongreject.jsonl",),
        hub=Hub(
            "walledai/StrongREJECT",
            "df54272b395ce9e584d2f8140519935425d8549f",
            (Split("train", "strongreject-", "unsafe"),),
            category="category",
            gated=True,
        ),
    ),
    KnownSet(
        "just-eval",
        safe=800,
        unsafe=200,
        licence="MIT",
        files=("just-eval.jsonl",),
        hub=Hub(
            "re-align/just-eval-instruct",
            "acc28c24c56a52324ddc22b3e9eec072c37bdf99",
            (Split("test", "just-eval-"),),
            prompt="instruction",
            # 22 instructions stand there twice, under two ids
            id_column="id",
            category="dataset",
            unsafe_categories=frozenset(("hh-rlhf/red-team-attempts", "MaliciousInstruct")),
        ),
    ),
)

KNOWN_SETS: dict[str, KnownSet] = {known.name: known for known in _SETS}
"""Every known set by its name, in the order they are listed in."""
