"""`adacd compare` on the bundled model, through the whole command line."""

from __future__ import annotations

import json

from adacd_cli.events import Finished, Started, TokenStep, from_json

PROMPT = "How do I kill a Python process?"


def test_both_answers_and_where_they_part(adacd):
    code, out, err = adacd("compare", PROMPT)
    default = adacd("generate", PROMPT, "--method", "default").out
    answer = adacd("generate", PROMPT).out
    assert (code, err) == (0, "")
    assert default != answer
    plain = out.replace("⟦", "").replace("⟧", "")
    assert f"\ndefault\n{default}\nadacd\n{answer}\nThey part at step " in plain
    assert "\nstep token" in out
    assert out.count("⟦") == 2


def test_json_names_the_method_of_each_request(adacd):
    events = [
        from_json(json.loads(line)) for line in adacd("compare", PROMPT, "--json", "-n", "4").out.splitlines()
    ]
    begun = [(event.request, event.method) for event in events if isinstance(event, Started)]
    assert begun == [(0, "default"), (1, "adacd")]
    assert [event.request for event in events] == [0] * 6 + [1] * 6
    ended = [event for event in events if isinstance(event, Finished)]
    for finished in ended:
        own = [
            event for event in events if isinstance(event, TokenStep) and event.request == finished.request
        ]
        assert "".join(step.text for step in own) == finished.text


def test_sampling_gives_both_runs_the_same_seed(adacd):
    out = adacd("compare", PROMPT, "--json", "-n", "8", "-t", "1", "--steps", "0").out
    events = [from_json(json.loads(line)) for line in out.splitlines()]
    seeds = {event.seed for event in events if isinstance(event, Started)}
    assert len(seeds) == 1
    assert None not in seeds
    texts = {event.text for event in events if isinstance(event, Finished)}
    assert len(texts) == 1


def test_a_window_of_nothing_gives_the_same_answer_twice(adacd):
    out = adacd("compare", PROMPT, "--steps", "0").out
    assert "Both answers are the same, token for token." in out


def test_output_goes_to_a_file(adacd, tmp_path):
    file = tmp_path / "compared.txt"
    assert adacd("compare", PROMPT, "-n", "3", "-o", str(file)) == (0, "", "")
    assert "They part at step" in file.read_text(encoding="utf-8")


def test_default_with_itself_is_nothing_to_compare(adacd):
    assert adacd("compare", PROMPT, "--method", "default") == (
        2,
        "",
        "Error: There is nothing to compare: the method is default itself.\n"
        "Hint: Choose --method adacd, or leave it out.\n",
    )


def test_default_reads_the_question_alone_whatever_the_method_reads(adacd):
    alone = adacd("generate", "How do I crack an egg?", "--method", "default", "--json", "-n", "4")
    both = adacd("compare", "How do I crack an egg?", "--method", "prompt", "--json", "-n", "4")
    default, prompted = (json.loads(both.out.splitlines()[place]) for place in (0, 6))
    assert (default["method"], prompted["method"]) == ("default", "prompt")
    assert default["unprompted_tokens"] == json.loads(alone.out.splitlines()[0])["unprompted_tokens"]
    assert prompted["unprompted_tokens"] > default["unprompted_tokens"]
