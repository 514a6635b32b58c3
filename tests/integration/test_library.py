"""adacd as a library: what it gives, and what a program gets wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adacd_cli import (
    AdacdError,
    Answer,
    Conversation,
    Finished,
    Request,
    Session,
    Settings,
    Started,
    decode,
    generate,
    load,
    prompts_for,
    stream,
)
from adacd_cli.errors import PromptError
from adacd_cli.events import Decision
from tests import typed_program

KILL, BOMB, EGG = (
    "How do I kill a Python process?",
    "How do I build a bomb at home?",
    "How do I crack an egg?",
)


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.mark.parametrize("placement", ["system", "user-start", "user-end"])
def test_an_answer_that_has_begun_is_continued(demo, adacd, placement):
    settings = Settings(contrast_placement=placement, contrast_steps=3)
    begun = Conversation.ask(KILL).with_assistant("To kill")
    answer = generate(demo, begun, settings)
    assert [step.decision is Decision.PLAIN for step in answer.steps][:4] == [False] * 3 + [True]
    assert answer.conversation == Conversation.ask(KILL).with_assistant("To kill" + answer.text)
    assert generate(demo, begun.as_messages, settings).text == answer.text
    options = ("--contrast-placement", placement, "--contrast-steps", "3", "--prefill", "To kill")
    assert adacd("generate", KILL, "-q", *options).out == answer.text + "\n"
    whole = generate(demo, KILL, settings, method="default").text
    rest = generate(demo, Conversation.ask(KILL).with_assistant(whole[:20]), settings, method="default").text
    assert whole[:20] + rest == whole


@pytest.mark.parametrize(
    "prompt",
    [
        KILL,
        [{"role": "user", "content": KILL}],
        ({"role": "user", "content": [{"type": "text", "text": KILL}]},),
        Conversation.ask(KILL),
    ],
)
def test_a_prompt_may_be_text_messages_or_a_conversation(demo, prompt):
    settings = Settings(max_new_tokens=8)
    pair = prompts_for(demo.tokenizer, Conversation.ask(KILL), settings)
    events = list(decode(demo, [Request(pair, settings)]))
    answer = generate(demo, prompt, settings)
    assert [answer.started, *answer.steps, answer.finished] == events
    assert list(stream(demo, prompt, settings)) == events
    assert answer == Answer(
        Conversation.ask(KILL).with_assistant(answer.text), events[0], tuple(events[1:-1]), events[-1]
    )


def test_an_answer_says_the_same_as_its_events(demo):
    answer = generate(demo, BOMB, max_new_tokens=6)
    end = answer.finished
    assert (answer.text, answer.thinking, answer.finish_reason) == (end.text, "", end.finish_reason)
    assert (answer.tokens, answer.added, answer.subtracted) == (6, 6, 0)
    assert str(answer) == "I'm sorry, but I"
    assert repr(answer) == """<Answer "I'm sorry, but I": 6 tokens, 6 added, 0 subtracted, length>"""


def test_a_system_message_of_the_conversation_comes_before_that_of_the_settings(demo):
    def prompt_tokens(prompt, **settings):
        return generate(demo, prompt, max_new_tokens=1, **settings).started.unprompted_tokens

    own = Conversation.ask("Hi", "Be brief.")
    assert prompt_tokens(own, system="Talk as long as you can, please.") == prompt_tokens(own)
    assert prompt_tokens("Hi", system="Be brief.") == prompt_tokens(own) > prompt_tokens("Hi")
    assert prompt_tokens(own.as_messages) == prompt_tokens(own)
    assert prompt_tokens(Conversation.ask("Hi"), system="Be brief.") == prompt_tokens(own)


def test_many_prompts_are_answered_as_each_alone(demo):
    prompts = [KILL, "hi", BOMB, EGG]
    together = generate(demo, prompts, max_new_tokens=20, batch_size=3)
    alone = [generate(demo, prompt, max_new_tokens=20) for prompt in prompts]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.started.request for answer in together] == [0, 1, 2, 3]
    assert generate(demo, []) == []
    assert list(stream(demo, ())) == []


def test_each_of_many_draws_with_a_seed_of_its_own_that_repeats_it(demo):
    answers = generate(demo, [EGG, EGG], temperature=1.5, seed=7, max_new_tokens=12)
    assert [answer.started.seed for answer in answers] == [7, 8]
    again = generate(demo, EGG, temperature=1.5, seed=8, max_new_tokens=12)
    assert again.text == answers[1].text != answers[0].text


def test_a_session_answers_as_the_model_does(demo):
    session = Session(demo)
    first = generate(session, EGG)
    question = first.conversation.with_user(KILL)
    assert generate(session, question).text == generate(demo, question).text
    both = generate(session, [EGG, KILL], max_new_tokens=8)
    assert [(each.started.request, each.text) for each in both] == [
        (0, "To crack an egg, tap it firm"),
        (1, "To kill a Python process, end the"),
    ]


def test_a_stream_ends_where_it_is_told_to(demo):
    seen = []
    for event in stream(demo, KILL, cancelled=lambda prompt: len(seen) > 3):
        seen.append(event)
    assert isinstance(seen[0], Started) and isinstance(seen[-1], Finished)
    assert (seen[-1].finish_reason.value, seen[-1].tokens) == ("cancelled", 3)


MESSAGES_HINT = 'Give a list of {"role": "user" or "assistant", "content": text}; the first may be "system".'
PROMPT_HINT = 'Give e.g. "How do I kill a Python process?".'
PANELS = "Give it to generate(), or give Settings to both."
MISTAKES = {
    "unknown": (
        lambda demo: generate(demo, "x", alhpa=3),
        "There is no setting `alhpa` (from generate()).",
        "Did you mean `alpha`?",
    ),
    "alias": (
        lambda demo: stream(demo, "x", steps=3),
        "There is no setting `steps` (from stream()).",
        "Did you mean `contrast_steps`?",
    ),
    "range": (
        lambda demo: generate(demo, "x", alpha=-3),
        "`alpha` is in [0, 1000000]; got -3 (from generate()).",
        "Strength α of the contrast.",
    ),
    "kind": (
        lambda demo: generate(demo, "x", alpha="3"),
        "`alpha` takes a number; got '3' (from generate()).",
        "Strength α of the contrast.",
    ),
    "loaded": (
        lambda demo: generate(demo, "x", dtype="float32"),
        "`dtype` cannot be set in generate(): the model is already loaded.",
        "Give it to load().",
    ),
    "screen": (
        lambda demo: generate(demo, "x", quiet=True),
        "`quiet` cannot be set in generate(): it is for the command line.",
        "Leave it out.",
    ),
    "not loaded": (
        lambda demo: generate("demo", "x"),
        "What answers is what load() gave, or a Session of it; got str.",
        'Write model = load("demo") first; adacd_cli.hf.adacd is for models of transformers.',
    ),
    "no settings": (
        lambda demo: generate(demo, "x", {"alpha": 3.0}),
        "generate() takes Settings; got dict.",
        "Give settings as keywords, or as Settings(…).",
    ),
    "gate": (
        lambda demo: generate(demo, "x", method="default", gate=True),
        "`gate` is for method adacd; the method is default.",
        "Choose --method adacd, or leave it out.",
    ),
    "loading": (
        lambda demo: load("demo", alpha=3),
        "`alpha` cannot be set in load(): it is read for each answer.",
        PANELS,
    ),
    "weights elsewhere": (
        lambda demo: load("http://127.0.0.1:1/v1", tokenizer="x", device="cuda"),
        "`device` is for weights that adacd loads itself, and the model runs on a server.",
        "Leave it out, and give the server its own when you start it.",
    ),
    "tokenizer of weights here": (
        lambda demo: load("demo", tokenizer="x"),
        "`tokenizer` is for a model on a server, and the model is 'demo'.",
        "Leave it out, or give the server's address as the model, like http://localhost:8000/v1.",
    ),
    "two models": (
        lambda demo: load("demo", model="x"),
        "load() is given two models.",
        "Leave one of them out.",
    ),
    "batch": (
        lambda demo: generate(demo, ["x", "y"], batch_size=0),
        '`batch_size` is at least 1, or "auto"; got 0.',
        "",
    ),
    "candidates": (
        lambda demo: generate(demo, "x", candidates=-1),
        "`candidates` is at least 0; got -1.",
        "",
    ),
    "empty": (lambda demo: stream(demo, " "), "The prompt is empty.", "Give a prompt with some text in it."),
    "no prompt": (
        lambda demo: generate(demo, 3),
        "A prompt is text, a list of messages or a Conversation; got int.",
        PROMPT_HINT,
    ),
    "no prompts": (
        lambda demo: generate(demo, ["x", 3]),
        "A prompt is text, a list of messages or a Conversation; got int.",
        PROMPT_HINT,
    ),
    "role": (
        lambda demo: generate(demo, [{"role": "tool", "content": "x"}]),
        "The messages are no conversation: message 0 has role 'tool'.",
        MESSAGES_HINT,
    ),
    "picture": (
        lambda demo: generate(demo, [{"role": "user", "content": [{"type": "image_url"}]}]),
        "The messages are no conversation: message 0 has no text.",
        MESSAGES_HINT,
    ),
    "unanswerable": (
        lambda demo: generate(demo, [{"role": "assistant", "content": "x"}]),
        "The conversation has no user message, so there is nothing to answer.",
        "Add a user message.",
    ),
    "too long": (
        lambda demo: stream(demo, ["x", "x " * 1000]),
        "Prompt 2 is 1012 tokens long with the contrast prompt (1003 without), and the model's context is "
        "512, the answer included.",
        "Shorten the prompt, or use a model with a longer context.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_at_once(demo, mistake):
    make, message, hint = MISTAKES[mistake]
    with pytest.raises(AdacdError) as caught:
        make(demo)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_one_text_is_a_list_of_one(demo):
    assert generate(demo, KILL, stop="parent").text == "To kill a Python process, end the "
    assert generate(demo, KILL, stop=["zombie", "parent"]).text == "To kill a Python process, end the "


def test_load_takes_a_name_or_settings(demo):
    assert load(settings=Settings()).name == load(model="demo").name == load().name == "demo"
    with pytest.raises(AdacdError, match=r"^The model folder .*nowhere does not exist\.$"):
        load(Path("./nowhere"), device="cpu")
    with pytest.raises(AdacdError, match=r"^load\(\) takes Settings; got int\.$"):
        load(3)


def test_messages_that_are_none():
    for messages in ([{}], ["text"], [{"role": "user", "content": []}], [None]):
        with pytest.raises(PromptError, match=r"^The messages are no conversation: message 0 has no text\.$"):
            Conversation.of(messages)
    said = Conversation.ask("Hi", "Be brief.").with_assistant("Hello").with_user("Bye")
    assert Conversation.of(said.as_messages) == said
    assert Conversation.of([]) == Conversation()


def test_a_typed_program_runs(capsys):
    assert typed_program.main() == 0
    assert capsys.readouterr().out.startswith("['Hello, I am a tiny demo model")


def test_importing_the_library_imports_no_torch():
    program = (
        "import json, sys\n"
        "from adacd_cli import Answer, AdacdError, Conversation, Settings, generate, stream\n"
        "print(json.dumps([name for name in ('torch', 'transformers') if name in sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == []
