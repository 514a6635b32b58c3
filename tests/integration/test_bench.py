"""`adacd bench` on a tiny shape and a tiny model folder: exact outputs, and what is wrong in exact words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from adacd_cli.bench import device, measure
from adacd_cli.loading import hardware
from adacd_cli.loading.machine import Load
from tests.conftest import RunCommand
from tests.golden import check
from tests.tiny import save_tiny, tiny_model

ROW = [
    "method",
    "batch_size",
    "prompt_tokens",
    "generation_tokens",
    "trials",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "ms_per_token",
    "ms_per_token_range",
    "first_token_s",
    "first_token_s_range",
    "seconds",
    "seconds_range",
    "ratio_to_default",
    "ratio_to_transformers",
    "ratio_to_llamacpp",
    "weights_gb_per_s",
    "bandwidth_share",
    "peak_memory_bytes",
    "settings",
]
MACHINE = [
    "system",
    "processor",
    "cores",
    "threads",
    "device",
    "adacd",
    "python",
    "torch",
    "transformers",
    "model",
    "revision",
    "engine",
    "dtype",
    "quantize",
    "bandwidth_gb_per_s",
    "weight_bytes_per_token",
    "busy_cores",
    "peak_memory",
]
SHORT = ("--device", "cpu", "--threads", "1", "--trials", "1", "--generation-tokens", "3")


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "tiny.json"
    tiny_model("llama").model.config.to_json_file(path, use_diff=False)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny("qwen3", path)
    return path


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nobody else uses, and nothing large to copy."""
    monkeypatch.setattr(Load, "busy_cores", lambda self: 0.0)
    monkeypatch.setattr(device, "_CPU_BYTES", 2**20)
    monkeypatch.setattr(device.gc, "collect", lambda: 0)


def test_the_json_of_a_shape(adacd: RunCommand, shape: Path) -> None:
    asked = (
        "--shape",
        str(shape),
        "--batch-size",
        "1,2",
        "--batch-size",
        "2",
        "--prompt-tokens",
        "9",
        "--json",
    )
    code, out, err = adacd("bench", *SHORT, *asked, "--against", "transformers", "--method", "default")
    assert (code, err) == (0, "")
    written = json.loads(out)
    assert list(written) == ["machine", "rows"]
    assert list(written["machine"]) == MACHINE
    assert all(list(row) == ROW for row in written["rows"])
    assert [(row["batch_size"], row["method"]) for row in written["rows"]] == [
        (size, method) for size in (1, 2) for method in ("transformers", "default")
    ]
    for row in written["rows"]:
        assert (row["prompt_tokens"], row["generation_tokens"], row["trials"]) == (9, 3, 1)
        unknown = {"ratio_to_llamacpp"} | ({"settings"} if row["method"] == "transformers" else set())
        assert {name for name, value in row.items() if value is None} == unknown
        assert 0 < row["first_token_s"] < row["seconds"]
        assert row["ms_per_token"] == pytest.approx(1000 * row["batch_size"] / row["decode_tokens_per_s"])
    machine = written["machine"]
    assert (machine["model"], machine["dtype"], machine["threads"]) == (str(shape), "float32", 1)


def test_the_tables_of_a_model_folder(adacd: RunCommand, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "speed.svg"
    asked = ("-m", str(folder), "--picture", str(picture), "--prompt-tokens", "40")
    code, out, err = adacd("bench", *SHORT, *asked)
    assert (code, err) == (0, f"The picture is {picture}.\n")
    lines = out.splitlines()
    assert lines[0] == f"{folder} · float32 · on cpu"
    assert lines[4] == "40 prompt tokens · 3 generated · medians of 1 trial, spread: fastest–slowest"
    assert [" ".join(line.split()) for line in (*lines[6:8], *lines[12:14])] == [
        "Prefill Decode ÷ ÷ trans-",
        "Batch Method tok/s tok/s ms/token spread default formers",
        "First Whole Weights Share Peak",
        "Batch Method token, s run, s spread GB/s of copy GB",
    ]
    first = [line.split() for line in lines if line.startswith("    1  ")]
    assert [cells[1] for cells in first] == ["default", "adacd"] * 2
    assert (first[0][-2:], first[1][-1]) == (["1.000", "–"], "–")
    assert "transformers" not in out.partition("\n\n")[2]
    assert "decoded tokens/s" in picture.read_text(encoding="utf-8")


def test_a_method_gets_what_it_needs(adacd: RunCommand, folder: Path) -> None:
    asked = ("-m", str(folder), "--method", "ssd", "--draft", str(folder), "--batch-size", "2", "--json")
    code, out, err = adacd("bench", *SHORT, *asked)
    assert (code, err) == (0, "")
    [row] = json.loads(out)["rows"]
    assert row["method"] == f"ssd (draft: {folder})"
    assert (row["ratio_to_default"], row["ratio_to_transformers"]) == (None, None)
    # one request after the other: the second one's prompt is read when the first one is done
    assert row["first_token_s"] < row["seconds"] / 2 + row["first_token_s"] / 2
    assert row["prefill_tokens_per_s"] < 2 * 64 / row["first_token_s"]


def test_a_busy_machine_is_said_once(adacd: RunCommand, shape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    arguments = ("bench", *SHORT, "--shape", str(shape), "--method", "default")
    for busy, when in (
        (iter([0.0, 1.5, 1.5]), "before it measured"),
        (iter([0.0, 0.1, 1.5]), "while it measured"),
    ):
        monkeypatch.setattr(Load, "busy_cores", lambda self, busy=busy: next(busy, 1.5))
        monkeypatch.setattr(Load, "free_cores", lambda self: 1)
        next(busy)
        code, _, err = adacd(*arguments)
        assert (code, err) == (
            0,
            f"Warning: Other programs kept 1.5 of 4 cores busy {when}: times may be too long.\n",
        )
    assert adacd(*arguments, "--quiet").err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shape", "lama3-8b"],
        ["--shape", "zzz.json"],
        ["--shape", "qwen3-8b", "-m", "demo"],
        ["--shape", "qwen3-8b", "--method", "ssd", "--draft", "demo"],
        ["--shape", "qwen3-8b", "--system", "Be kind."],
        [
            "--prompt-tokens",
            "20",
            "--system",
            "Be kind and patient. Be kind and patient. Be kind and patient.",
        ],
        ["--prompt-tokens", "500", "--generation-tokens", "13"],
        ["--prompt-tokens", "505", "--generation-tokens", "7"],
        ["--batch-size", "1,0"],
        ["--against", "transformer"],
        ["--direction", "x"],
        ["--picture", "speed.pdf"],
        ["--trials", "0"],
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_before_anything_is_measured(adacd: RunCommand, arguments: list[str]) -> None:
    found = adacd("bench", *arguments)
    assert (found.code, found.out) == (2, "")
    check("bench", " ".join(arguments), found.err)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{", 2, "The shape 'c.json' is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        ("[1]", 2, "The shape 'c.json' names no model_type."),
        ('{"model_type": "nonesuch"}', 3, "The installed transformers knows no model of type 'nonesuch', which c.json is."),
        ('{"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 48, "vocab_size": 99}', 3, "c.json is an encoder (bert), not a causal language model: it looks ahead."),
        ('{"model_type": "t5"}', 3, "c.json is an encoder-decoder model (t5), not a causal language model."),
        ('{"model_type": "llama", "hidden_size": -8}', 3, "config.json of c.json cannot be used: The hidden size (-8) is not a multiple of the number of attention heads (32)."),
        ('{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": -1}', 3, "The shape 'c.json' cannot be built: "),
    ],
)  # fmt: skip
def test_a_file_that_is_no_shape_is_refused(
    adacd: RunCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text(text, encoding="utf-8")
    found = adacd("bench", "--shape", "c.json")
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith(f"Error: {message}")
    if "cannot be used" in message:
        assert found.err.endswith("\nHint: Fix that in it, or name a model's own config.json.\n")


def test_a_folder_is_the_shape_that_its_configuration_describes(
    adacd: RunCommand, shape: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes(shape.read_bytes())
    arguments = ("--shape", str(tmp_path), "-n", "2", "--method", "default", "--json")
    code, out, err = adacd("bench", *SHORT, *arguments)
    assert (code, err) == (0, "")
    assert [row["generation_tokens"] for row in json.loads(out)["rows"]] == [2]


def test_a_folder_without_a_configuration_is_no_shape(adacd: RunCommand, tmp_path: Path) -> None:
    found = adacd("bench", "--shape", str(tmp_path))
    assert (found.code, found.out) == (2, "")
    check("bench", "a folder without config.json", found.err.replace(str(tmp_path), "FOLDER"))


def test_weights_that_do_not_fit_are_refused_before_they_are_made(
    adacd: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "free_memory", lambda: 4 * 10**9)
    assert adacd("bench", "--shape", "llama3-8b", "--dtype", "bfloat16", "--device", "cpu") == (
        1,
        "",
        "Error: The weights of llama3-8b need 16.1 GB, and 4.0 GB are free on cpu.\n"
        "Hint: Use --dtype bfloat16, a larger device, or a smaller shape.\n",
    )


def test_a_batch_that_cannot_fit_leaves_what_was_measured(
    adacd: RunCommand, shape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "free_memory", lambda: 10**9)
    arguments = (
        "bench",
        *SHORT,
        "--shape",
        str(shape),
        "--method",
        "default",
        "--json",
        "--prompt-tokens",
        "9",
    )
    code, out, err = adacd(*arguments, "--batch-size", "1,1000000")
    assert code == 1
    assert [row["batch_size"] for row in json.loads(out)["rows"]] == [1]
    assert re.fullmatch(
        r"Error: A batch of 1000000 needs at least \d+\.\d GB, and 1\.0 GB are free on cpu\.\n"
        r"Hint: Lower --batch-size, --prompt-tokens or --generation-tokens\.\n",
        err,
    )
    code, out, err = adacd(*arguments, "--batch-size", "1000000")
    assert (code, out) == (1, "")


def test_ctrl_c_leaves_what_was_measured(
    adacd: RunCommand, shape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, time_decode = iter(range(4)), measure.time_decode

    def broken_off(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return time_decode(*arguments)

    monkeypatch.setattr(measure, "time_decode", broken_off)
    arguments = ("bench", *SHORT, "--shape", str(shape), "--trials", "2", "--json")
    code, out, err = adacd(*arguments)
    assert (code, err) == (130, "Interrupted.\n")
    assert [(row["method"], row["trials"]) for row in json.loads(out)["rows"]] == [
        ("default", 1),
        ("adacd", 1),
    ]
    assert adacd(*arguments) == (130, "", "Interrupted.\n")  # before anything was measured
