"""A program of somebody who uses the package, for a type checker: `mypy --strict` has nothing against it."""

from __future__ import annotations

from collections.abc import Iterator

from adacd_cli import (
    AdacdError,
    Answer,
    Conversation,
    Event,
    Finished,
    LanguageModel,
    Session,
    Settings,
    TokenStep,
    generate,
    load,
    stream,
)


def ask(model: LanguageModel, questions: list[str]) -> list[str]:
    answers = generate(model, questions, Settings(alpha=3.0), batch_size=4)
    return [answer.text for answer in answers]


def ask_mixed(model: LanguageModel, messages: list[dict[str, str]]) -> list[Answer]:
    several: list[str | list[dict[str, str]]] = ["Hi?", messages]
    first: list[Answer] = generate(model, [messages, "Hi?"])
    return first + generate(model, several)


def talk(model: LanguageModel) -> Answer:
    session = Session(model)
    first = generate(session, "How do I crack an egg?", max_new_tokens=20)
    return generate(session, first.conversation.with_user("And then?"))


def watch(model: LanguageModel, messages: list[dict[str, str]]) -> Iterator[str]:
    events: Iterator[Event] = stream(model, messages)
    for event in events:
        if isinstance(event, TokenStep):
            yield f"{event.token} {event.decision.mark} {event.measures.confidence:.2f}"
        elif isinstance(event, Finished):
            yield event.finish_reason.value


def main() -> int:
    try:
        model = load("demo", threads=1)
        several: list[Answer] = generate(model, [Conversation.ask("Hi"), Conversation.ask("Bye")])
        one: Answer = generate(model, [{"role": "user", "content": "Hi"}])
    except AdacdError as error:
        print(error.message, error.hint)
        return error.exit_code
    print(ask(model, ["Hi"]), talk(model), [*watch(model, one.conversation.as_messages[:1])], len(several))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
