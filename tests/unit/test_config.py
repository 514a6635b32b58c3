"""Settings: what wins over what, where each value came from, and every way a value can be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from adacd_cli.config import SETTINGS, Settings, Source, change, resolve
from adacd_cli.config.files import presets
from adacd_cli.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(
    flags: dict[str, Any] | None = None,
    config: str | None = None,
    assignments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> tuple[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        resolve(flags or {}, config, assignments=assignments, environment=environment or {})
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("flag", "variable", "line", "value", "kind"),
    [
        ("1", "2", "3", 1.0, "flag"),
        ("0", "2", "3", 0.0, "flag"),
        (None, "2", "3", 2.0, "environment"),
        (None, "0", "3", 0.0, "environment"),
        (None, None, "3", 3.0, "file"),
        (None, None, "0", 0.0, "file"),
        (None, None, None, 4.5, "default"),
        ("1", None, "3", 1.0, "flag"),
        ("1", None, None, 1.0, "flag"),
    ],
)
def test_the_nearest_level_wins(
    tmp_path: Path, flag: str | None, variable: str | None, line: str | None, value: float, kind: str
) -> None:
    config = None if line is None else write(tmp_path, f"alpha: {line}\n")
    environment = {} if variable is None else {"ADACD_ALPHA": variable}
    resolved = resolve({"alpha": flag}, config, environment=environment)
    where = {
        "flag": "--alpha",
        "environment": "ADACD_ALPHA",
        "file": f"{tmp_path}/my.yaml, line 1",
        "default": "",
    }
    assert (resolved.settings.alpha, resolved.sources["alpha"]) == (value, Source(kind, where[kind]))  # type: ignore[arg-type]


def test_zero_empty_and_false_survive_at_every_level(tmp_path: Path) -> None:
    config = write(tmp_path, 'max_new_tokens: 5\nsystem: "from the file"\nstats: true\n')
    falsy = {"max_new_tokens": 0, "system": "", "stats": False}
    environment = {"ADACD_MAX_NEW_TOKENS": "0", "ADACD_SYSTEM": "", "ADACD_STATS": "0"}
    for resolved in (
        resolve(falsy, config, environment={}),
        resolve({}, config, environment=environment),
        resolve({}, write(tmp_path, 'max_new_tokens: 0\nsystem: ""\nstats: false\n'), environment={}),
        resolve({}, config, assignments=["max_new_tokens=0", "system=", "stats=false"], environment={}),
    ):
        assert {name: getattr(resolved.settings, name) for name in falsy} == falsy


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "", None),
        ("seed", "none", None),
        ("seed", "7", 7),
        ("quantize", "none", None),
        ("system", "none", "none"),
        ("gate", "yes", True),
        ("gate", "Off", False),
        ("stop", "", ()),
        ("stop", "[/INST]", ("[/INST]",)),
        ("stop", '["a", "b"]', ("a", "b")),
        ("stop", "a,b", ("a,b",)),
        ("device", "cuda:1", "cuda:1"),
        ("alpha", "1e-2", 0.01),
    ],
)
def test_text_of_the_environment_is_read_by_kind(name: str, text: str, value: Any) -> None:
    resolved = resolve({}, environment={f"ADACD_{name.upper()}": text})
    assert getattr(resolved.settings, name) == value


def test_yaml_values_keep_their_kind(tmp_path: Path) -> None:
    text = "alpha: 1e-2\ntop_p: 1\nseed: null\nstop: [a, 'b\n\n  c']\nquiet: on\nmodel: 'on'\n"
    settings = resolve({}, write(tmp_path, text), environment={}).settings
    assert settings == Settings(alpha=0.01, top_p=1.0, seed=None, stop=("a", "b\nc"), quiet=True, model="on")


def test_the_file_may_come_from_the_environment_and_a_flag_wins_over_it(tmp_path: Path) -> None:
    environment = {"ADACD_CONFIG": write(tmp_path, "alpha: 3\n")}
    assert resolve({}, environment=environment).settings.alpha == 3
    assert resolve({}, "llama3-8b", environment=environment).settings.alpha == 4.5


def test_a_gate_flag_that_contradicts_the_method_is_refused(tmp_path: Path) -> None:
    hint = "Leave one of them out."
    message = "`gate` is for method adacd; the method is default (from --method)."
    assert refusal({"gate": True, "method": "default"}) == (message, hint)
    assert refusal({"method": "default"}, assignments=("gate=true",)) == (message, hint)
    gated = "`gate` is for method adacd; the method is adacd-gated (from "
    assert refusal({"gate": False, "method": "adacd-gated"}) == (f"{gated}--method).", hint)
    config = write(tmp_path, "method: adacd-gated\n")
    assert refusal({"gate": False}, config) == (f"{gated}{config}, line 1).", hint)


def test_a_gate_that_contradicts_nothing_or_stands_in_a_file_is_let_be(tmp_path: Path) -> None:
    config = write(tmp_path, "gate: true\n")
    for flags, file, method in (
        ({"method": "default"}, config, "default"),
        ({"gate": True, "method": "adacd-gated"}, None, "adacd-gated"),
        ({"gate": False, "method": "default"}, None, "default"),
        ({"gate": False}, config, "adacd"),
    ):
        assert resolve(flags, file, environment={}).settings.effective_method == method


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert resolve({}, write(tmp_path, "# nothing\n"), environment={}).settings == Settings()


LAMBDA = SETTINGS["agreement_threshold"].sentence
ALPHA = SETTINGS["alpha"].sentence
STEPS = SETTINGS["contrast_steps"].sentence
METHODS = "Available: default, prompt, selfcd, safedecoding, ssd, surgical, adacd, adacd-gated."
DEVICES = "Available: auto, cpu, cuda, cuda:N, mps."


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        ({"agreement_threshold": "1.4"}, "`agreement_threshold` is in [0, 1]; got 1.4 (from --agreement-threshold).", LAMBDA),
        ({"agreement_threshold": "-0.1"}, "`agreement_threshold` is in [0, 1]; got -0.1 (from --agreement-threshold).", LAMBDA),
        ({"plausibility": "2"}, "`plausibility` is in [0, 1]; got 2 (from --plausibility).", SETTINGS["plausibility"].sentence),
        ({"alpha": "nan"}, "`alpha` is in [0, 1000000]; got nan (from --alpha).", ALPHA),
        ({"alpha": "inf"}, "`alpha` is in [0, 1000000]; got inf (from --alpha).", ALPHA),
        ({"alpha": "-1"}, "`alpha` is in [0, 1000000]; got -1 (from --alpha).", ALPHA),
        ({"alpha": "abc"}, "`alpha` takes a number; got 'abc' (from --alpha).", ALPHA),
        ({"alpha": ""}, "`alpha` takes a number; got '' (from --alpha).", ALPHA),
        ({"contrast_steps": "-1"}, "`contrast_steps` is at least 0; got -1 (from --contrast-steps).", STEPS),
        ({"contrast_steps": "1.5"}, "`contrast_steps` takes a whole number; got '1.5' (from --contrast-steps).", STEPS),
        ({"contrast_steps": True}, "`contrast_steps` takes a whole number; got true (from --contrast-steps).", STEPS),
        ({"max_new_tokens": "-1"}, "`max_new_tokens` is at least 0; got -1 (from --max-new-tokens).", "Longest answer."),
        ({"temperature": "-1"}, "`temperature` is in [0, 100]; got -1 (from --temperature).", SETTINGS["temperature"].sentence),
        ({"top_p": "0"}, "`top_p` is in (0, 1]; got 0 (from --top-p).", SETTINGS["top_p"].sentence),
        ({"threads": "0"}, "`threads` is at least 1; got 0 (from --threads).", SETTINGS["threads"].sentence),
        ({"seed": str(2**63)}, f"`seed` is in [0, {2**63 - 1}]; got {2**63} (from --seed).", SETTINGS["seed"].sentence),
        ({"method": "adacs"}, "Unknown method 'adacs' (from --method).", f"{METHODS} Did you mean 'adacd'?"),
        ({"device": "gpu"}, "Unknown device 'gpu' (from --device).", f"{DEVICES} Did you mean 'cpu'?"),
        ({"device": "cuda:x"}, "Unknown device 'cuda:x' (from --device).", f"{DEVICES} Did you mean 'cuda:N'?"),
        ({"dtype": "fp16"}, "Unknown dtype 'fp16' (from --dtype).", "Available: auto, bfloat16, float16, float32."),
        ({"contrast_prompt": ""}, "`contrast_prompt` is empty (from --contrast-prompt).", SETTINGS["contrast_prompt"].sentence),
        ({"model": ""}, "`model` is empty (from --model).", SETTINGS["model"].sentence),
        ({"stop": ["a", "\udce9"]}, "`stop` holds bytes that are not UTF-8 (from --stop).", "Write it in UTF-8."),
        ({"stop": ["a", ""]}, "`stop` holds an empty text (from --stop).", SETTINGS["stop"].sentence),
    ],
)  # fmt: skip
def test_a_refused_value_is_named_with_range_value_and_place(
    flags: dict[str, Any], message: str, hint: str
) -> None:
    assert refusal(flags) == (message, hint)


@pytest.mark.parametrize(
    ("variable", "text", "message", "hint"),
    [
        ("ADACD_ALPHA", "-2", "`alpha` is in [0, 1000000]; got -2 (from ADACD_ALPHA).", ALPHA),
        ("ADACD_CONTRAST_STEPS", "ten", "`contrast_steps` takes a whole number; got 'ten' (from ADACD_CONTRAST_STEPS).", STEPS),
        ("ADACD_CONFIG", "no.yaml", "There is no preset and no file named 'no.yaml' (from ADACD_CONFIG).", "Name a YAML file or a preset. Available: default, gemma2-9b, llama3-8b, qwen3-8b."),
        ("ADACD_SYSTEM", "caf\udce9", "`system` holds bytes that are not UTF-8 (from ADACD_SYSTEM).", "Write it in UTF-8."),
        ("ADACD_GATE", "maybe", "`gate` takes true or false; got 'maybe' (from ADACD_GATE).", SETTINGS["gate"].sentence),
        ("ADACD_ALFA", "2", "The environment variable ADACD_ALFA names no setting.", "Did you mean ADACD_ALPHA? Unset it otherwise."),
        ("ADACD_LAMBDA", "1", "The environment variable ADACD_LAMBDA names no setting.", "Did you mean ADACD_AGREEMENT_THRESHOLD? Unset it otherwise."),
    ],
)  # fmt: skip
def test_a_refused_variable_is_named(variable: str, text: str, message: str, hint: str) -> None:
    assert refusal(environment={variable: text}) == (message, hint)


def test_other_variables_are_left_alone() -> None:
    environment = {
        "ADACD_HOME": "x",
        "ADACD_TEST_ALPHAS": "1",
        "ADACD_API_KEY": "k",
        "ADACD_DEBUG": "1",
        "PATH": "p",
    }
    assert resolve({}, environment=environment).settings == Settings()


YAML_HINT = "Write one `name: value` a line; configs/default.yaml shows every setting."
LINE_HINT = "Write one `name: value` a line."


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("alpha: 3\n# x\nagreement_treshold: 2\n", "There is no setting `agreement_treshold` (from {file}, line 3).", "Did you mean `agreement_threshold`?"),
        ("lambda: 0.5\n", "There is no setting `lambda` (from {file}, line 1).", "Did you mean `agreement_threshold`?"),
        ("max-new-tokens: 3\n", "There is no setting `max-new-tokens` (from {file}, line 1).", "Did you mean `max_new_tokens`?"),
        ("zzz: 3\n", "There is no setting `zzz` (from {file}, line 1).", "`adacd config show` lists every setting."),
        ("\n\nagreement_threshold: 1.4\n", "`agreement_threshold` is in [0, 1]; got 1.4 (from {file}, line 3).", LAMBDA),
        ("alpha: .nan\n", "`alpha` is in [0, 1000000]; got nan (from {file}, line 1).", ALPHA),
        ("alpha: null\n", "`alpha` takes a number; got null (from {file}, line 1).", ALPHA),
        ("contrast_steps: 10.0\n", "`contrast_steps` takes a whole number; got 10.0 (from {file}, line 1).", STEPS),
        ("gate: 1\n", "`gate` takes true or false; got 1 (from {file}, line 1).", SETTINGS["gate"].sentence),
        ("contrast_prompt: no\n", "`contrast_prompt` takes text; got false (from {file}, line 1).", "Put quotes around text."),
        ("stop: [a, 1]\n", "`stop` takes a list of texts; got ['a', 1] (from {file}, line 1).", "Put quotes around text."),
        ("alpha: 3\nalpha: 3\n", "`alpha` stands twice in {file}, on lines 1 and 2.", "Remove one of them."),
        ("alpha: [1\nbeta: 2\n", "{file}, line 2 is not valid YAML: expected ',' or ']', but got ':'.", YAML_HINT),
        ("alpha:\n\t1\n", "{file}, line 2 is not valid YAML: found character '\\t' that cannot start any token.", YAML_HINT),
        ("model: !!python/name:os.system x\n", "{file}, line 1 is not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'.", YAML_HINT),
        ("seed: 2024-99-99\n", "{file} is not valid YAML: month must be in 1..12.", YAML_HINT),
        ("- alpha\n", "{file} holds no settings.", LINE_HINT),
        ("? [a]\n: 1\n", "{file}, line 1 names no setting.", LINE_HINT),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str, hint: str) -> None:
    config = write(tmp_path, text)
    assert refusal(config=config) == (message.format(file=config), hint)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path, b"alpha: \xff\xfe\n")
    message, hint = refusal(config=config)
    assert message.startswith(f"{config} is not valid YAML: ")
    assert hint == YAML_HINT


PRESETS = "Name a YAML file or a preset. Available: default, gemma2-9b, llama3-8b, qwen3-8b."


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (
            "qwen3",
            "There is no preset and no file named 'qwen3' (from --config).",
            f"{PRESETS} Did you mean 'qwen3-8b'?",
        ),
        ("no/such.yaml", "There is no preset and no file named 'no/such.yaml' (from --config).", PRESETS),
        ("", "There is no preset and no file named '' (from --config).", PRESETS),
        ("/", "The configuration '/' is a folder (from --config).", PRESETS),
    ],
)
def test_a_missing_configuration_lists_the_presets(config: str, message: str, hint: str) -> None:
    assert refusal(config=config) == (message, hint)


@pytest.mark.parametrize(
    ("assignments", "message", "hint"),
    [
        (("alpha",), "--set takes name=value; got 'alpha'.", "Write e.g. --set alpha=3."),
        (("alfa=3",), "There is no setting `alfa` (from --set).", "Did you mean `alpha`?"),
        (("alpha=-3",), "`alpha` is in [0, 1000000]; got -3 (from --set).", ALPHA),
        (("top_p=0.5",), "`top_p` is given twice, by --top-p and by --set.", "Leave one of them out."),
    ],
)
def test_a_bad_assignment_is_refused(assignments: tuple[str, ...], message: str, hint: str) -> None:
    assert refusal({"top_p": "0.9"}, assignments=assignments) == (message, hint)


def test_a_value_may_hold_an_equals_sign() -> None:
    resolved = resolve({}, assignments=["system=a=b"], environment={})
    assert (resolved.settings.system, resolved.sources["system"]) == ("a=b", Source("flag", "--set"))


@pytest.mark.parametrize("name", ["expert", "draft", "direction"])
@pytest.mark.parametrize("text", ["", "none", "Null"])
def test_what_a_method_loads_can_be_taken_back(name: str, text: str) -> None:
    environment = {f"ADACD_{name.upper()}": "some/folder"}
    assert resolve({}, environment=environment).settings.model_dump()[name] == "some/folder"
    for flags, assignments in (({name: text}, ()), ({}, [f"{name}={text}"])):
        resolved = resolve(flags, assignments=assignments, environment=environment)
        assert resolved.settings == Settings()
    assert change(Settings(**{name: "some/folder"}), name, text, "/set") == Settings()
    assert resolve({"system": "none"}, environment={}).settings.system == "none"


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (
            {"gate": True, "method": "selfcd"},
            "`gate` is for method adacd; the method is selfcd (from --method).",
            "Leave one of them out.",
        ),
        (
            {"draft": "small", "method": None},
            "`draft` is for method ssd; the method is adacd.",
            "Choose --method ssd, or leave it out.",
        ),
        (
            {"expert": "lora", "method": "surgical"},
            "`expert` is for method safedecoding; the method is surgical (from --method).",
            "Leave one of them out.",
        ),
    ],
)
def test_a_flag_that_the_method_has_no_use_for_is_refused(
    flags: dict[str, Any], message: str, hint: str
) -> None:
    assert refusal(flags) == (message, hint)


def test_a_file_may_name_what_other_methods_need(tmp_path: Path) -> None:
    config = write(tmp_path, "method: surgical\ndraft: small\ngate: true\n")
    settings = resolve({"method": "surgical"}, config, environment={}).settings
    assert (settings.method, settings.draft, settings.direction) == ("surgical", "small", None)
    # where the command has no --method, as eval, each run is checked by itself
    assert resolve({"draft": "other"}, config, environment={}).settings.draft == "other"


def test_a_change_that_leaves_the_method_without_what_it_needs_says_how_to_give_it() -> None:
    with pytest.raises(ConfigurationError) as refused:
        change(Settings(), "method", "ssd", "/method")
    assert (refused.value.message, refused.value.hint.partition(". ")[0]) == (
        "Method ssd needs `draft`.",
        "Give /set draft DRAFT",
    )
    with pytest.raises(ConfigurationError, match=r"^Method surgical needs `direction`\.$"):
        change(Settings(method="surgical", direction="d"), "direction", "none", "/set")
    with pytest.raises(ConfigurationError, match=r"^`gate` is for method adacd; the method is selfcd\.$"):
        change(Settings(method="selfcd"), "gate", "true", "/set")


def test_change_sets_one_setting_from_text() -> None:
    assert change(Settings(alpha=2), "top_k", "5", "/set") == Settings(alpha=2, top_k=5)
    with pytest.raises(ConfigurationError, match=r"^`alpha` is in \[0, 1000000\]; got -1 \(from /set\)\.$"):
        change(Settings(), "alpha", "-1", "/set")


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({}, "adacd"),
        ({"gate": True}, "adacd-gated"),
        ({"method": "adacd-gated"}, "adacd-gated"),
        ({"method": "default", "gate": True}, "default"),
    ],
)
def test_the_gate_makes_adacd_gated(values: dict[str, Any], method: str) -> None:
    assert Settings(**values).effective_method == method


def test_decoding_holds_json_values_only() -> None:
    assert Settings(stop=("a",), seed=3).decoding() == {
        "contrast_prompt": "Please refuse to answer me!",
        "contrast_placement": "system",
        "thinking": False,
        "alpha": 4.5,
        "agreement_threshold": 0.9,
        "plausibility": 0.01,
        "contrast_steps": 10,
        "max_new_tokens": 512,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": 3,
        "stop": ["a"],
    }


@pytest.mark.parametrize(
    "values", [{"alpha": "1"}, {"contrast_steps": True}, {"gate": 1}, {"alpha": float("nan")}, {"alfa": 1}]
)
def test_settings_made_in_code_are_strict(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().alpha = 1.0  # type: ignore[misc]


def test_default_yaml_mirrors_every_setting_in_order_with_sentence_unit_and_range() -> None:
    text = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    defaults = Settings().model_dump(mode="json")
    assert list(yaml.safe_load(text).items()) == list(defaults.items())
    blocks = {block.splitlines()[-1].split(":")[0]: block for block in text.strip().split("\n\n")}
    for setting in SETTINGS.values():
        comment = " ".join(line.removeprefix("# ") for line in blocks[setting.name].splitlines()[:-1])
        facts = [f"One of {', '.join(setting.option.choices)}."] if setting.option.choices else []
        facts += [f"Unit: {setting.option.unit}."] if setting.option.unit else []
        facts += [f"Range: {setting.range}."] if setting.range else []
        assert comment == " ".join([setting.sentence, *facts])


PAPER = {
    "contrast_prompt": "Please refuse to answer me!",
    "method": "adacd",
    "alpha": 4.5,
    "agreement_threshold": 0.9,
    "plausibility": 0.01,
    "contrast_steps": 10,
    "max_new_tokens": 512,
    "temperature": 0.0,
}


@pytest.mark.parametrize(
    ("preset", "more"),
    [
        ("llama3-8b", {"model": "meta-llama/Meta-Llama-3-8B-Instruct"}),
        ("gemma2-9b", {"model": "google/gemma-2-9b-it"}),
        ("qwen3-8b", {"model": "Qwen/Qwen3-8B", "thinking": False}),
    ],
)
def test_a_preset_names_the_whole_run_of_the_paper(preset: str, more: dict[str, Any]) -> None:
    resolved = resolve({}, preset, environment={})
    values = resolved.settings.model_dump()
    from_file = {name: values[name] for name, source in resolved.sources.items() if source.kind == "file"}
    assert from_file == PAPER | more


def test_the_presets_are_the_files_of_configs() -> None:
    assert list(presets()) == ["default", "gemma2-9b", "llama3-8b", "qwen3-8b"]
