"""Profiles: the file, the store that finds the one that fits, what wins over it, and who names it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from adacd_cli.config import Settings, resolve
from adacd_cli.engine.switches import SwitchNumbers
from adacd_cli.errors import ConfigurationError, OutputError
from adacd_cli.evaluation.store import model_facts
from adacd_cli.profiles import store
from adacd_cli.profiles.fingerprint import fingerprint
from adacd_cli.profiles.store import Fingerprint, Profile, applied, chosen_method, read, write
from tests.byte_tokenizer import make_tokenizer
from tests.conftest import RunCommand
from tests.profiles import save_demo_profile
from tests.serving import Site, letters, site

CHOSEN = {
    "contrast_prompt": "No!",
    "contrast_placement": "user-end",
    "switch": "learned",
    "alpha": 2.0,
    "plausibility": 0.001,
    "contrast_steps": 7,
}
NUMBERS = SwitchNumbers(
    openers=(73,), tokens=(73, 83), means=(-1.0, -2.0), weights=(0.5, -0.5), low=-1.0, high=2.0
)
PROFILE = Profile(
    model="letters",
    fingerprint=Fingerprint(config="c", template="t", tokenizer="k", weights="w"),
    settings=CHOSEN,
    numbers=NUMBERS,
    measured={"auc": 0.9},
    date="2026-01-02",
)


def saved(folder: Path, name: str = "letters", **values: object) -> Profile:
    profile = PROFILE.model_copy(update={"fingerprint": fingerprint(letters())} | values)
    write(profile, folder / f"{name}.yaml")
    return profile


# --- the file ---


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.yaml"
    write(PROFILE, path)
    back = read(path)
    assert back == PROFILE.model_copy(update={"source": str(path)})
    assert (back.name, back.digest, PROFILE.name) == ("mine", PROFILE.digest, "letters")
    assert back.numbers.weights == (0.5, -0.5)
    assert path.stat().st_size < 10_000 and not list(path.parent.glob("*.part"))


def test_the_digest_is_of_what_decides_tokens() -> None:
    others = PROFILE.model_copy(update={"date": "2027-01-01", "measured": {}, "model": "other"})
    assert others.digest == PROFILE.digest
    for change in (
        {"settings": CHOSEN | {"alpha": 2.5}},
        {"numbers": NUMBERS.model_copy(update={"low": -2.0})},
    ):
        assert PROFILE.model_copy(update=change).digest != PROFILE.digest


FILE = yaml.safe_load(PROFILE.text())
FAR = "1" * 400


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is broken: it is no mapping."),
        ("- 1", "is broken: it is no mapping."),
        ("a: [", "is broken: it is no YAML text."),
        ("\x00", "is broken: it is no YAML text."),
        ("[" * 5000, "is broken: it is no YAML text."),
        ("schema: 2\nanything: else", "is of version 2, and this adacd reads versions up to 1."),
        ("model: m", "is broken: fingerprint: Field required."),
        (FILE | {"schema": 0}, "is broken: schema: "),
        (FILE | {"settings": CHOSEN | {"alfa": 1}}, "settings holds alfa, which no profile chooses"),
        (FILE | {"settings": {"model": "other"}}, "settings holds model, which no profile chooses"),
        (FILE | {"settings": CHOSEN | {"alpha": -1}}, "is broken: "),
        (FILE | {"settings": CHOSEN | {"alpha": float("nan")}}, "is broken: "),
        (FILE | {"extra": 1}, "is broken: extra: "),
        (FILE | {"numbers": FILE["numbers"] | {"low": float("nan")}}, "is broken: numbers.low: "),
        (FILE | {"numbers": FILE["numbers"] | {"bias": float("inf")}}, "is broken: numbers.bias: "),
        (
            FILE | {"numbers": FILE["numbers"] | {"means": [1.0]}},
            "means and weights are of different lengths",
        ),
        (FILE | {"numbers": FILE["numbers"] | {"low": 3.0}}, "low is above high"),
        (FILE | {"numbers": FILE["numbers"] | {"tokens": [-1, 2]}}, "or a token is negative"),
        (FILE | {"numbers": FILE["numbers"] | {"openers": []}}, "is broken: numbers.openers: "),
        ({1: 2} | FILE, "is broken: "),
    ],
)
def test_a_file_that_is_no_profile_says_what_is_wrong(
    tmp_path: Path, text: str | dict[str, object], what: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    assert caught.value.message.startswith(f"The profile {path} is ") and what in caught.value.message
    assert "adacd fit" in caught.value.hint


def test_a_file_that_cannot_be_read_or_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read(tmp_path / "none.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written to .*: File exists"):
        write(PROFILE, tmp_path / "file" / "p.yaml")


# --- what it is applied to ---


def test_flags_and_files_win_over_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("plausibility: 0.5\n")
    given = {"method": "fitted", "alpha": 3.0}
    settings = resolve(given, str(file), environment={"ADACD_CONTRAST_STEPS": "4"}).settings
    used = applied(settings, PROFILE)
    assert (used.alpha, used.plausibility, used.contrast_steps) == (3.0, 0.5, 4)
    assert (used.contrast_prompt, used.contrast_placement, used.switch) == ("No!", "user-end", "learned")
    assert applied(used, PROFILE) == used
    other = Settings(method="adacd")
    assert applied(other, PROFILE) is other
    with pytest.raises(ConfigurationError, match="Method fitted needs a profile"):
        applied(settings, None)


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, "fitted"),
        ({"alpha": 3.0}, "fitted"),
        ({"method": "adacd"}, "adacd"),
        ({"gate": True}, "adacd-gated"),
    ],
)
def test_fitted_is_the_method_where_a_profile_is_used_and_none_is_chosen(
    given: dict[str, object], method: str
) -> None:
    settings = Settings(**given)  # type: ignore[arg-type]
    assert chosen_method(settings, PROFILE).effective_method == method
    assert chosen_method(settings, None) is settings


# --- the store ---


def test_the_profile_that_fits_is_used_by_itself(profiles: Path) -> None:
    model = letters()
    assert store.with_profile(model, Settings()).profile is None
    saved(profiles)
    found = store.with_profile(model, Settings())
    assert found.profile is not None and found.profile.name == "letters" and found.warnings == ()
    assert store.with_profile(model, Settings(profile="none")).profile is None
    renamed = replace(model, name="elsewhere/under-another-name")
    assert store.with_profile(renamed, Settings()).profile == found.profile


def test_the_users_profile_goes_before_a_bundled_one_and_the_newest_first(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "package"
    saved(bundled, "bundled")
    monkeypatch.setattr(store, "bundled", lambda: [bundled / "bundled.yaml"])
    assert store.with_profile(letters(), Settings()).profile.name == "bundled"
    for age, name in enumerate(("new", "old")):
        saved(profiles, name)
        os.utime(profiles / f"{name}.yaml", (1e9 - age, 1e9 - age))
    assert store.with_profile(letters(), Settings()).profile.name == "new"
    assert store.with_profile(letters(), Settings(profile="bundled")).profile.name == "bundled"
    with pytest.raises(ConfigurationError, match="comes with adacd"):
        store.remove("bundled")


def test_a_profile_that_traded_is_used_only_where_it_is_named(profiles: Path) -> None:
    saved(profiles, automatic=False)
    model = letters()
    assert store.with_profile(model, Settings()).profile is None
    for name in ("letters", str(profiles / "letters.yaml")):
        assert store.with_profile(model, Settings(profile=name)).profile is not None


def test_another_template_is_said_once_and_not_used(profiles: Path) -> None:
    own = fingerprint(letters())
    assert own.weights is None  # a script has no norm
    known = own.model_copy(update={"weights": "w", "template": "0" * 16})
    for name in ("one", "two"):
        saved(profiles, name, fingerprint=known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "fingerprint", lambda model: own.model_copy(update={"weights": "w"}))
        found = store.with_profile(letters(), Settings())
        with pytest.raises(ConfigurationError) as caught:
            store.with_profile(letters(), Settings(profile="one"))
    assert found.profile is None
    assert sorted(found.warnings) == [
        f"The profile {name} of these weights is not used: the template is another."
        for name in ("one", "two")
    ]
    assert "was made for letters, and letters has another template." in caught.value.message


def test_a_broken_profile_is_said_and_the_others_are_used(profiles: Path) -> None:
    saved(profiles, "fits")
    (profiles / "broken.yaml").write_text("a: [")
    os.utime(profiles / "fits.yaml", (1, 1))  # is looked at last
    found = store.with_profile(letters(), Settings())
    assert found.profile is not None
    assert found.warnings == (f"The profile {profiles / 'broken.yaml'} is broken: it is no YAML text.",)


def test_a_token_that_the_model_does_not_have_is_found_before_anything_is_decoded(profiles: Path) -> None:
    numbers = NUMBERS.model_copy(update={"tokens": (73, 10_000_000)})
    saved(profiles, numbers=numbers)
    with pytest.raises(ConfigurationError, match="token 10000000 is beyond"):
        store.with_profile(letters(), Settings(profile=str(profiles / "letters.yaml")))
    found = store.with_profile(letters(), Settings())
    assert found.profile is None and "10000000" in found.warnings[-1]


def test_another_tokenizer_is_another_fingerprint() -> None:
    model = letters()
    other = make_tokenizer()
    other.add_tokens(["fox", "naïve"])
    own, changed = fingerprint(model), fingerprint(replace(model, tokenizer=other))
    assert own.differs_in(changed) == ["tokenizer"]
    other.chat_template = "{{ messages[0].content }}"
    assert own.differs_in(fingerprint(replace(model, tokenizer=other))) == ["template", "tokenizer"]


def test_a_run_records_the_profile_and_its_digest() -> None:
    facts = model_facts(replace(letters(), profile=PROFILE))
    assert facts["profile"] == f"letters {PROFILE.digest}"
    assert "profile" not in model_facts(letters())


# --- the command ---


def test_profiles_lists_shows_exports_and_removes(profiles: Path, adacd: RunCommand, tmp_path: Path) -> None:
    assert adacd("profiles") == (0, "", "")
    saved(profiles)
    saved(profiles, "traded", automatic=False)
    (profiles / "broken.yaml").write_text("a: [")
    code, out, err = adacd("profiles", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert (code, err) == (0, "")
    assert {name: row["used"] for name, row in rows.items()} == {
        "letters": "by itself",
        "traded": "when named",
        "broken": f"The profile {profiles / 'broken.yaml'} is broken: it is no YAML text.",
    }
    assert rows["letters"] | {"used": ""} == {
        "name": "letters",
        "model": "letters",
        "kind": "yours",
        "date": "2026-01-02",
        "used": "",
    }
    code, out, _ = adacd("profiles", "show", "letters")
    assert code == 0 and out == (profiles / "letters.yaml").read_text(encoding="utf-8")
    assert json.loads(adacd("profiles", "show", "letters", "--json").out)["numbers"]["openers"] == [73]
    target = str(tmp_path / "out.yaml")
    assert adacd("profiles", "export", "letters", "--output", target) == (0, f"{target}\n", "")
    assert read(Path(target)).digest == PROFILE.digest
    assert adacd("profiles", "export", "letters", "--output", target).code == 2
    assert adacd("profiles", "remove", "letters").out == f"Removed {profiles / 'letters.yaml'}\n"
    for arguments in (["show", "letters"], ["show"], ["list", "x"], ["burn", "x"]):
        code, out, err = adacd("profiles", *arguments)
        assert (code, out, err.count("\n"), err[:7]) == (2, "", 2, "Error: ")


# --- who names it ---


def test_the_server_decodes_fitted_and_lets_a_request_choose() -> None:
    tokenizer = make_tokenizer()
    (token,) = tokenizer.encode("a", add_special_tokens=False)
    numbers = SwitchNumbers(
        openers=(token,), tokens=(token,), means=(0.0,), weights=(1.0,), low=-1.0, high=2.0
    )
    profile = PROFILE.model_copy(update={"numbers": numbers})
    model = replace(letters(), profile=profile)
    settings = chosen_method(Settings(max_new_tokens=3), profile)

    def started(server: Site, **adacd: object) -> dict[str, Any]:
        answer = server.chat(stream=True, adacd={"trace": True, **adacd})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = json.loads(answer.text.splitlines()[0].removeprefix("data: "))["adacd"][
            "started"
        ]
        return found

    with site(model, settings=settings) as server:
        own = started(server)
        assert (own["method"], own["profile"], own["settings"]["alpha"]) == ("fitted", "letters", 2.0)
        assert started(server, alpha=3)["settings"]["alpha"] == 3.0
        paper = started(server, method="adacd")
        assert (paper["method"], paper["profile"], paper["settings"]["alpha"]) == ("adacd", None, 4.5)
    with site(letters()) as server:
        assert started(server)["method"] == "adacd"
        refused = server.chat(adacd={"method": "fitted"})
        assert refused.status_code == 400
        assert "needs a profile of the model" in refused.json()["error"]["message"]


def test_a_chat_lists_fitted_and_refuses_it_without_a_profile(
    adacd: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: letters())
    typed = "/method fitted\nHi?\n/method default\nHi?\n"
    code, out, err = adacd("chat", "-m", "x", "-n", "3", "--no-stats", stdin=typed)
    assert (code, out.strip()) == (0, "abc")
    assert "Error: Method fitted needs a profile of the model, and there is none.\n" in err


def test_a_chat_compares_with_what_the_profile_says(adacd: RunCommand, tmp_path: Path) -> None:
    profile = save_demo_profile(tmp_path / "own.yaml")
    given = ("--profile", profile, "--method", "fitted", "--max-new-tokens", "2")
    code, out, err = adacd("chat", *given, stdin="How do I crack an egg?\n/compare\n")
    assert (code, "Error" in err) == (0, False)
    assert "Run     demo · fitted · profile own · α 4.5 · mass switch" in out


def test_a_fit_is_suggested_once_and_never_to_a_program(
    adacd: RunCommand, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: letters())
    note = "Note: AdaCD's settings were never fitted to this model: `adacd fit -m some/model` does it.\n"

    def said(*arguments: str) -> int:
        return adacd(*arguments, "-m", "some/model", "--max-new-tokens", "1").err.count(note)

    for command in ("generate", "explain", "compare"):
        assert said(command, "Hi") == 1
        for quiet in (["--quiet"], ["--json"], ["--profile", "none"], ["--alpha", "2"], ["--gate"]):
            assert said(command, "Hi", *quiet) == 0
    assert said("chat") == 1
    assert said("generate", "Hi", "--method", "default") == 0
    preset = replace(letters(), name="Qwen/Qwen3-8B")
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: preset)
    assert said("generate", "Hi") == 0
