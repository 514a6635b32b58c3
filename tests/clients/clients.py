"""Clients of other makers against a server, each as its documentation shows it and with its own defaults.

    python tests/clients/clients.py NAME URL

prints the three texts that it got, as JSON: `answer` to a question, `stream`, the same in pieces, and `history`,
the answer to a second question behind the first one and its answer; None where a client has no such thing. It
runs in whichever environment has the client. The exit code is 77 where that is not installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

QUESTION = "How do I crack an egg?"
SECOND = "How do I kill a Python process?"
MODEL = "demo"
KEY = "sk-local"
NOT_INSTALLED = 77

Texts = dict[str, str | None]


def _texts(answer: str | None, stream: Any, history: str | None) -> Texts:
    return {"answer": answer, "stream": None if stream is None else "".join(stream), "history": history}


def _turns(answer: str | None) -> Any:
    second = {"role": "user", "content": SECOND}
    return [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}, second]


def openai_chat(url: str) -> Texts:
    from openai import OpenAI

    chat = OpenAI(base_url=f"{url}/v1", api_key=KEY).chat.completions
    question: Any = [{"role": "user", "content": QUESTION}]
    answer = chat.create(model=MODEL, messages=question).choices[0].message.content
    stream = chat.create(model=MODEL, messages=question, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    return _texts(
        answer, pieces, chat.create(model=MODEL, messages=_turns(answer)).choices[0].message.content
    )


def openai_completions(url: str) -> Texts:
    from openai import OpenAI

    text = OpenAI(base_url=f"{url}/v1", api_key=KEY).completions
    several = text.create(model=MODEL, prompt=[QUESTION, SECOND], n=2).choices
    assert [each.index for each in several] == [0, 1, 2, 3]
    stream = text.create(model=MODEL, prompt=QUESTION, stream=True)
    return _texts(several[0].text, [chunk.choices[0].text for chunk in stream], several[2].text)


def openai_responses(url: str) -> Texts:
    from openai import OpenAI

    responses = OpenAI(base_url=f"{url}/v1", api_key=KEY).responses
    answer = responses.create(model=MODEL, input=QUESTION).output_text
    with responses.stream(model=MODEL, input=QUESTION) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == answer
    return _texts(answer, pieces, responses.create(model=MODEL, input=_turns(answer)).output_text)


def litellm(url: str) -> Texts:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is loaded from the network
    import litellm

    def ask(messages: Any, **fields: Any) -> Any:
        made = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY}
        return litellm.completion(messages=messages, **made, **fields)

    question = [{"role": "user", "content": QUESTION}]
    answer = ask(question).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(question, stream=True)]
    return _texts(answer, pieces, ask(_turns(answer)).choices[0].message.content)


def langchain(url: str) -> Texts:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key=KEY)
    answer = model.invoke(QUESTION).text
    pieces = [chunk.text for chunk in model.stream(QUESTION)]
    history = model.invoke([("user", QUESTION), ("assistant", answer), ("user", SECOND)]).text
    return _texts(str(answer), map(str, pieces), str(history))


def llama_index(url: str) -> Texts:
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(model=MODEL, api_base=f"{url}/v1", api_key=KEY, is_chat_model=True)
    question = [ChatMessage(role="user", content=QUESTION)]
    answer = model.chat(question).message.content
    pieces = [chunk.delta or "" for chunk in model.stream_chat(question)]
    turns = [ChatMessage(**turn) for turn in _turns(answer)]
    return _texts(answer, pieces, model.chat(turns).message.content)


def llm(url: str) -> Texts:
    import llm as installed

    assert installed
    with tempfile.TemporaryDirectory() as folder:
        model = {"model_id": MODEL, "model_name": MODEL, "api_base": f"{url}/v1", "api_key_name": MODEL}
        (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps([model]))
        (Path(folder) / "keys.json").write_text(json.dumps({MODEL: KEY}))
        environment = {**os.environ, "LLM_USER_PATH": folder}

        def ask(*arguments: str) -> str:
            command = [sys.executable, "-m", "llm", "-m", MODEL, *arguments]
            return subprocess.check_output(
                command, text=True, env=environment, stdin=subprocess.DEVNULL
            ).strip()

        stream, answer = ask(QUESTION), ask("--no-stream", QUESTION)
        return _texts(answer, [stream], ask("--continue", SECOND))


def autogen(url: str) -> Texts:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    facts = {"vision": False, "function_calling": False, "json_output": False, "structured_output": False}
    model = OpenAIChatCompletionClient(
        model=MODEL, base_url=f"{url}/v1", api_key=KEY, model_info={**facts, "family": "unknown"}
    )

    async def ask() -> Texts:
        plain = AssistantAgent("assistant", model)
        answer = (await plain.run(task=QUESTION)).messages[-1].to_text()
        history = (await plain.run(task=SECOND)).messages[-1].to_text()
        streaming = AssistantAgent("assistant", model, model_client_stream=True)
        events = [event async for event in streaming.run_stream(task=QUESTION)]
        pieces = [event.content for event in events if event.__class__.__name__.endswith("ChunkEvent")]
        return _texts(answer, pieces, history)

    return asyncio.run(ask())


def semantic_kernel(url: str) -> Texts:
    from openai import AsyncOpenAI
    from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
    from semantic_kernel.contents import ChatHistory

    service = OpenAIChatCompletion(MODEL, async_client=AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY))
    settings = OpenAIChatPromptExecutionSettings()

    async def ask() -> Texts:
        history = ChatHistory()
        history.add_user_message(QUESTION)
        made = await service.get_chat_message_content(history, settings)
        stream = service.get_streaming_chat_message_content(history, settings)
        pieces = [str(chunk) async for chunk in stream]
        history.add_message(made)
        history.add_user_message(SECOND)
        return _texts(str(made), pieces, str(await service.get_chat_message_content(history, settings)))

    return asyncio.run(ask())


def pydantic_ai(url: str) -> Texts:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)))

    async def ask() -> Texts:
        made = await agent.run(QUESTION)
        async with agent.run_stream(QUESTION) as stream:
            pieces = [text async for text in stream.stream_text(delta=True)]
        history = await agent.run(SECOND, message_history=made.all_messages())
        return _texts(made.output, pieces, history.output)

    return asyncio.run(ask())


def openai_agents(url: str) -> Texts:
    from agents import Agent, Runner, set_default_openai_client, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)  # else it reports to OpenAI
    set_default_openai_client(AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY))
    agent: Any = Agent(name="assistant", model=MODEL)

    async def ask() -> Texts:
        made = await Runner.run(agent, QUESTION)
        events = [event async for event in Runner.run_streamed(agent, QUESTION).stream_events()]
        raw = [event.data for event in events if event.type == "raw_response_event"]
        pieces = [each.delta for each in raw if each.type == "response.output_text.delta"]
        turns: Any = [*made.to_input_list(), {"role": "user", "content": SECOND}]
        return _texts(made.final_output, pieces, (await Runner.run(agent, turns)).final_output)

    return asyncio.run(ask())


def anthropic(url: str) -> Texts:
    from anthropic import Anthropic

    messages = Anthropic(base_url=url, api_key=KEY).messages
    question: Any = [{"role": "user", "content": QUESTION}]

    def ask(turns: Any) -> str:
        return str(messages.create(model=MODEL, max_tokens=100, messages=turns).content[0].text)

    with messages.stream(model=MODEL, max_tokens=100, messages=question) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    count = messages.count_tokens(model=MODEL, messages=question).input_tokens
    assert (final.stop_reason, final.usage.input_tokens) == ("end_turn", count)
    return _texts(ask(question), pieces, ask(_turns(ask(question))))


def ollama(url: str) -> Texts:
    from ollama import Client

    client = Client(host=url, headers={"Authorization": f"Bearer {KEY}"})
    assert [each.model for each in client.list().models] == [MODEL]
    assert client.show(MODEL).capabilities == ["completion"]
    question = [{"role": "user", "content": QUESTION}]
    answer = client.chat(MODEL, question).message.content
    pieces = [chunk.message.content or "" for chunk in client.chat(MODEL, question, stream=True)]
    assert client.generate(MODEL, QUESTION).response == answer
    return _texts(answer, pieces, client.chat(MODEL, _turns(answer)).message.content)


def inspect_ai(url: str) -> Texts:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, get_model

    model = get_model(f"openai-api/adacd/{MODEL}", base_url=f"{url}/v1", api_key=KEY)

    async def ask() -> Texts:
        answer = (await model.generate(QUESTION)).completion
        turns = [ChatMessageUser(content=QUESTION), ChatMessageAssistant(content=answer)]
        history = await model.generate([*turns, ChatMessageUser(content=SECOND)])
        return _texts(answer, None, history.completion)

    return asyncio.run(ask())


if __name__ == "__main__":
    name, address = sys.argv[1:]
    try:
        print(json.dumps(globals()[name](address)))
    except ModuleNotFoundError as missing:
        print(missing, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
