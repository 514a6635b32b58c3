// Clients for Node against a server, as in clients.py: node tests/clients/clients.mjs NAME URL FOLDER
// FOLDER is where they are installed.

import { createRequire } from "node:module";
import { join } from "node:path";

const QUESTION = "How do I crack an egg?";
const SECOND = "How do I kill a Python process?";
const MODEL = "demo";
const KEY = "sk-local";
const NOT_INSTALLED = 77;

const turns = (answer) => [
  { role: "user", content: QUESTION },
  { role: "assistant", content: answer },
  { role: "user", content: SECOND },
];

async function joined(stream, piece) {
  let text = "";
  for await (const chunk of stream) text += piece(chunk) ?? "";
  return text;
}

async function withAi(ai, model) {
  const { text: answer } = await ai.generateText({ model, prompt: QUESTION });
  const stream = await joined(ai.streamText({ model, prompt: QUESTION }).textStream, (text) => text);
  const { text: history } = await ai.generateText({ model, messages: turns(answer) });
  return { answer, stream, history };
}

const CLIENTS = {
  async openai(load, url) {
    const OpenAI = load("openai");
    const { completions } = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY }).chat;
    const ask = async (messages) => (await completions.create({ model: MODEL, messages })).choices[0].message.content;
    const question = [{ role: "user", content: QUESTION }];
    const chunks = await completions.create({ model: MODEL, messages: question, stream: true });
    const answer = await ask(question);
    const stream = await joined(chunks, (chunk) => chunk.choices[0]?.delta.content);
    return { answer, stream, history: await ask(turns(answer)) };
  },

  async openai_responses(load, url) {
    const OpenAI = load("openai");
    const { responses } = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY });
    const ask = async (input) => (await responses.create({ model: MODEL, input })).output_text;
    const chunks = await responses.create({ model: MODEL, input: QUESTION, stream: true });
    const stream = await joined(chunks, (event) => event.type === "response.output_text.delta" && event.delta || "");
    const answer = await ask(QUESTION);
    return { answer, stream, history: await ask(turns(answer)) };
  },

  ai_openai_compatible(load, url) {
    const { createOpenAICompatible } = load("@ai-sdk/openai-compatible");
    const provider = createOpenAICompatible({ name: "adacd", baseURL: `${url}/v1`, apiKey: KEY });
    return withAi(load("ai"), provider(MODEL));
  },

  ai_openai(load, url) {
    const { createOpenAI } = load("@ai-sdk/openai");
    return withAi(load("ai"), createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY })(MODEL));
  },
};

const [name, url, folder] = process.argv.slice(2);
try {
  console.log(JSON.stringify(await CLIENTS[name](createRequire(join(folder, "/")), url)));
} catch (error) {
  console.error(error);
  process.exit(error.code === "MODULE_NOT_FOUND" ? NOT_INSTALLED : 1);
}
