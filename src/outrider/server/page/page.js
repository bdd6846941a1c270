// The page at /: reads the form, runs the two streams, draws what they give.
// Tokens, steps and the comparison are in tally.js, HTTP in stream.js, sentences in words.js.

import { chunks, getJson } from "./stream.js";
import { Tally, compare } from "./tally.js";
import { ending, inWords, verdict } from "./words.js";

const EXAMPLES = [
  {
    name: "Stack class",
    kind: "completion",
    prompt:
      'class Stack:\n    """A simple last-in, first-out stack."""\n\n    def __init__(self):\n        self._items = []\n\n' +
      '    def push(self, item):\n        """Add an item to the top of the stack."""\n        self._items.append(item)\n\n' +
      '    def pop(self):\n        """Remove the top item and return it."""\n',
  },
  {
    name: "Config file",
    kind: "completion",
    prompt:
      'import os\nimport json\n\n\ndef load_config(path):\n    """Read a JSON file and return its content as a dict."""\n' +
      "    with open(path) as f:\n        return json.load(f)\n\n\ndef save_config(path, config):\n" +
      '    """Write the config to a JSON file."""\n',
  },
  {
    name: "Gym problem",
    kind: "chat",
    prompt:
      "The gym has 7 racks with 12 balls on each. The team takes 18 balls outside. " +
      "How many balls remain in the gym?",
  },
  {
    name: "Picnic problem",
    kind: "chat",
    prompt:
      "Uwe is watching. For a picnic Peter buys 8 salads at $13 each and 9 drinks at $13 each. " +
      "How many dollars does the picnic cost?",
  },
];

const at = (id) => document.getElementById(id);
const form = at("form");
const runButton = at("run");

let server = null; // {model, numDrafts, maxModelLen}
let running = null; // AbortController of a run
let conversation = []; // messages before the one in the form
let answered = null; // [message, answer] of the latest whole chat run

// ---- the server

async function findServer() {
  const { data } = await getJson("v1/models", at("key").value);
  const [model] = data;
  const numDrafts = model.speculative_config?.num_speculative_tokens ?? 0;
  server = { model: model.id, numDrafts, method: model.speculative_config?.method, maxModelLen: model.max_model_len };
  const drafts = at("drafts");
  drafts.replaceChildren(...Array.from({ length: numDrafts }, (_, index) => new Option(String(index + 1))));
  if (numDrafts) drafts.value = String(numDrafts);
  drafts.disabled = at("order").disabled = numDrafts === 0;
  at("lead").hidden = numDrafts === 0;
  at("no-drafter").hidden = numDrafts > 0;
  if (server.maxModelLen) at("max-tokens").max = server.maxModelLen;
  const drafter = numDrafts ? `${server.method}, up to ${numDrafts} drafts a step` : "no drafter";
  at("server").textContent = `${server.model} · ${drafter}`;
}

// ---- the form

function kind() {
  return form.elements.kind.value;
}

function showKind() {
  at("prompt-label").textContent = kind() === "chat" ? "Message" : "Text to be completed";
  at("prompt").classList.toggle("is-prose", kind() === "chat");
  at("conversation").hidden = kind() !== "chat" || conversation.length === 0;
}

// A chat goes on with the answer that is shown; only then, so that Run repeats the same request until then.
function reply() {
  conversation = [...conversation, ...answered];
  at("turns").replaceChildren(
    ...conversation.map(({ role, content }) => {
      const item = document.createElement("li");
      const who = document.createElement("strong");
      who.textContent = role === "user" ? "You" : "Model";
      item.append(who, ` ${content}`);
      return item;
    }),
  );
  answered = null;
  at("reply").hidden = true;
  at("prompt").value = "";
  showKind();
  at("prompt").focus();
}

function forget() {
  conversation = [];
  answered = null;
  at("turns").replaceChildren();
  at("reply").hidden = true;
  showKind();
}

function take(example) {
  forget();
  form.elements.kind.value = example.kind;
  at("prompt").value = example.prompt;
  showKind();
}

const SETTINGS = [
  { id: "temperature", name: "Temperature", isWhole: false },
  { id: "max-tokens", name: "Max tokens", isWhole: true },
  { id: "seed", name: "Seed", isWhole: true },
];

// The first thing that is wrong with the form, in words, with its field marked; null where all is well.
function wrong() {
  for (const { id } of SETTINGS) at(id).removeAttribute("aria-invalid");
  at("prompt").removeAttribute("aria-invalid");
  const refuse = (field, message) => {
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return message;
  };
  if (!at("prompt").value.trim()) return refuse(at("prompt"), "There is no prompt yet. Type one, or choose an example.");
  for (const { id, name, isWhole } of SETTINGS) {
    const field = at(id);
    if (id === "seed" && field.value === "" && !field.validity.badInput) {
      field.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    }
    const number = field.valueAsNumber;
    const isIn = number >= Number(field.min) && number <= Number(field.max);
    if (!isIn || (isWhole && !Number.isInteger(number))) {
      return refuse(field, `${name} takes ${isWhole ? "a whole number" : "a number"} from ${field.min} to ${field.max}.`);
    }
  }
  return null;
}

function request(numDrafts) {
  const body = {
    model: server.model,
    max_tokens: at("max-tokens").valueAsNumber,
    temperature: at("temperature").valueAsNumber,
    seed: at("seed").valueAsNumber,
    num_speculative_tokens: numDrafts,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    return_token_ids: true,
    return_token_origins: true,
  };
  const prompt = at("prompt").value;
  if (kind() === "chat") return { path: "v1/chat/completions", body: { ...body, messages: [...conversation, { role: "user", content: prompt }] } };
  return { path: "v1/completions", body: { ...body, prompt } };
}

function curl({ path, body }) {
  const url = new URL(path, document.baseURI);
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = at("key").value ? ' -H "Authorization: Bearer $API_KEY"' : "";
  return `curl -N ${url} -H 'Content-Type: application/json'${key} -d '${quoted}'`;
}

// ---- what is drawn

// One stream's column: figures and tokens. Draws what is new in its tally, once a frame.
class Panel {
  constructor(title, prompt) {
    const root = at("stream-template").content.firstElementChild.cloneNode(true);
    this.root = root;
    this.title = title;
    this.tally = new Tally();
    this.numDrawn = 0;
    const heading = root.querySelector("h2");
    heading.textContent = title;
    heading.id = `stream-${at("streams").childElementCount}`;
    root.setAttribute("aria-labelledby", heading.id);
    this.text = root.querySelector(".text");
    this.text.setAttribute("aria-label", `Tokens ${title.toLowerCase()}`);
    const given = document.createElement("span");
    given.className = "given";
    given.textContent = prompt;
    this.text.append(given);
    this.figure = Object.fromEntries([...root.querySelectorAll("[data-figure]")].map((dd) => [dd.dataset.figure, dd]));
    at("streams").append(root);
  }

  draw() {
    const { tally, text } = this;
    // follows the end, unless a person has scrolled away from it
    const isAtEnd = text.scrollTop === 0 || text.scrollHeight - text.scrollTop - text.clientHeight < 24;
    text.append(...tally.tokens.slice(this.numDrawn).map((token, index) => drawn(token, this.numDrawn + index)));
    if (isAtEnd) text.scrollTop = text.scrollHeight;
    this.numDrawn = tally.tokens.length;
    this.figure.tokens.textContent = tally.tokens.length;
    this.figure.steps.textContent = tally.steps.length;
    this.figure.perStep.textContent = tally.tokensPerStep?.toFixed(2) ?? "–";
    const speed = tally.tokensPerSecond;
    this.figure.speed.textContent = speed === null ? "–" : speed.toFixed(speed < 100 ? 1 : 0);
    this.root.querySelector(".end").textContent = ending(tally);
  }

  mark(index) {
    const token = this.text.querySelector(`[data-index="${index}"]`);
    token?.classList.add("is-difference");
    if (token) this.text.scrollTop = token.offsetTop - this.text.clientHeight / 2;
  }
}

function drawn(token, index) {
  const span = document.createElement("span");
  span.className = token.isDraft ? "token draft" : "token target";
  span.dataset.index = index;
  span.dataset.id = token.id;
  const from = token.isDraft ? `draft ${token.draft} of` : "target,";
  span.title = `token ${index + 1}, id ${token.id}: ${from} step ${token.step + 1}`;
  span.textContent = token.text;
  if (token.text.startsWith("\n")) span.classList.add("is-newline");
  if (token.text === "") span.classList.add("is-empty");
  return span;
}

// Columns of cells on a scale that all timelines share, so that fewer steps are a shorter row.
class Timeline {
  constructor(panel, height) {
    const root = at("timeline-template").content.firstElementChild.cloneNode(true);
    root.querySelector(".timeline-name").textContent = panel.title;
    this.count = root.querySelector(".timeline-count");
    this.picture = root.querySelector("svg");
    this.picture.style.height = `${height * 12}px`;
    this.height = height;
    this.panel = panel;
    at("timelines").append(root);
  }

  draw(width) {
    const { steps } = this.panel.tally;
    const cell = (step, level) => `M${step + 0.1} ${this.height - level - 0.92}h.8v.84h-.8z`;
    let drafts = "";
    let targets = "";
    steps.forEach((step, index) => {
      for (let level = 0; level < step.drafts; level += 1) drafts += cell(index, level);
      if (step.hasTarget) targets += cell(index, step.drafts);
    });
    this.picture.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.picture.querySelector(".draft-cells").setAttribute("d", drafts);
    this.picture.querySelector(".target-cells").setAttribute("d", targets);
    const tokens = this.panel.tally.tokens.length;
    this.count.textContent = `${steps.length} steps`;
    this.picture.setAttribute("aria-label", `${this.panel.title}: ${tokens} tokens in ${steps.length} steps`);
  }
}

function drawBars(tally, numDrafts) {
  const bars = at("bars");
  while (bars.childElementCount < numDrafts) {
    const item = document.createElement("li");
    const [name, bar, rate] = ["bar-name", "bar", "bar-rate"].map((className) => {
      const part = document.createElement("span");
      part.className = className;
      return part;
    });
    bar.append(document.createElement("i"));
    item.append(name, bar, rate);
    bars.append(item);
  }
  const acceptance = tally.acceptance;
  [...bars.children].forEach((item, index) => {
    const { accepted = 0, drafts = 0, rate = 0 } = acceptance[index] ?? {};
    item.querySelector(".bar-name").textContent = `draft ${index + 1}`;
    item.querySelector("i").style.width = `${100 * rate}%`;
    item.querySelector(".bar-rate").textContent = drafts ? `${(100 * rate).toFixed(0)} %  ${accepted} of ${drafts}` : "–";
  });
  const stats = tally.speculation;
  at("acceptance-note").textContent = stats?.num_drafts
    ? `Mean acceptance length ${stats.mean_acceptance_length.toFixed(2)} of at most ${numDrafts + 1}; ` +
      `${stats.num_accepted_tokens} of ${stats.num_draft_tokens} drafts accepted.`
    : "";
}

function say(kind, title, text) {
  const notice = at("status");
  notice.hidden = false;
  notice.className = `notice is-${kind}`;
  const strong = document.createElement("strong");
  strong.textContent = title;
  notice.replaceChildren(strong, ` ${text}`);
}

function complain(message) {
  at("alert").hidden = message === null;
  at("alert").textContent = message ?? "";
}

// What an earlier run proved is no answer to the next one.
function outdate() {
  at("status").hidden = true;
  at("results").classList.add("is-old");
  at("old").hidden = false;
}

// ---- a run

class Run {
  constructor() {
    const prompt = kind() === "chat" ? "" : at("prompt").value;
    this.message = kind() === "chat" ? { role: "user", content: at("prompt").value } : null;
    answered = null;
    at("reply").hidden = true;
    at("results").classList.remove("is-old");
    at("old").hidden = true;
    at("streams").replaceChildren();
    at("timelines").replaceChildren();
    at("bars").replaceChildren();
    this.numDrafts = server.numDrafts ? Number(at("drafts").value) : 0;
    const withDrafts = `With ${this.numDrafts} draft${this.numDrafts === 1 ? "" : "s"} a step`;
    this.drafted = this.numDrafts ? new Panel(withDrafts, prompt) : null;
    this.plain = new Panel("Without drafts", prompt);
    this.panels = this.drafted ? [this.drafted, this.plain] : [this.plain];
    this.timelines = this.panels.map((panel) => new Timeline(panel, panel === this.plain ? 1 : this.numDrafts + 1));
    this.requests = this.drafted ? [request(this.numDrafts), request(0)] : [request(0)];
    this.together = at("order").value === "together";
    this.isDue = false;
    at("acceptance").hidden = at("legend").hidden = !this.drafted;
    at("copy").textContent = "Copy";
    at("curl").textContent = curl(this.requests[0]);
    at("sharing").textContent =
      this.drafted && this.together ? "Both run at once and share the engine, so their speeds are not those of a run alone." : "";
    at("results").hidden = false;
  }

  async all(signal) {
    say("open", "Running", "");
    this.draw();
    // on a phone the answer is below the form
    if (matchMedia("(max-width: 760px)").matches) at("status").scrollIntoView({ block: "start" });
    const tasks = [];
    for (const [index, panel] of this.panels.entries()) {
      const task = this.#one(panel.tally, this.requests[index], signal);
      if (this.together) tasks.push(task);
      else await task;
    }
    const results = await Promise.allSettled(tasks);
    const failed = results.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
    // a refusal says more than the abort that it caused in the other stream
    if (failed.length) throw failed.find(({ name }) => name !== "AbortError") ?? failed[0];
  }

  async #one(tally, { path, body }, signal) {
    try {
      for await (const chunk of chunks(path, body, { apiKey: at("key").value, signal })) {
        tally.add(chunk, performance.now());
        this.#drawSoon();
      }
    } catch (error) {
      running?.abort();
      throw error;
    }
  }

  #drawSoon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  draw() {
    const most = Math.max(32, ...this.panels.map(({ tally }) => tally.steps.length));
    for (const panel of this.panels) panel.draw();
    for (const timeline of this.timelines) timeline.draw(most);
    if (this.drafted) drawBars(this.drafted.tally, this.numDrafts);
  }

  // The proof, or as much of it as there is.
  conclude(isStopped) {
    this.draw();
    if (this.panels.every(({ tally }) => tally.tokens.length === 0)) {
      at("results").hidden = isStopped;
      at("status").hidden = true;
      return;
    }
    if (this.message && !isStopped) {
      const content = this.plain.tally.tokens.map(({ text }) => text).join("");
      answered = [this.message, { role: "assistant", content }];
      at("reply").hidden = false;
    }
    if (!this.drafted) {
      const tokens = this.plain.tally.tokens.length;
      say("open", isStopped ? "Stopped" : "Done", `${tokens} tokens. This server has no drafter, so there is nothing to compare.`);
      return;
    }
    const comparison = compare(this.drafted.tally, this.plain.tally);
    const { kind: how, title, text } = verdict(this.drafted.tally, this.plain.tally, comparison, {
      isStopped,
      isTimed: !this.together,
    });
    if (how === "different") for (const panel of this.panels) panel.mark(comparison.difference);
    say(how, title, text);
  }
}

async function start() {
  complain(null);
  outdate();
  const message = wrong();
  if (message !== null) {
    complain(message);
    return;
  }
  const controller = new AbortController();
  running = controller;
  runButton.textContent = "Stop";
  document.body.classList.add("is-running");
  let run = null;
  let isWhole = false;
  try {
    if (server === null) await findServer();
    run = new Run();
    await run.all(controller.signal);
    isWhole = true;
  } catch (error) {
    if (error.name !== "AbortError") report(error);
  } finally {
    running = null;
    runButton.textContent = "Run";
    document.body.classList.remove("is-running");
    run?.conclude(!isWhole);
  }
}

function report(error) {
  complain(inWords(error));
  if (error.status === 401 || error.status === 403) {
    at("key-field").hidden = false;
    at("key").focus();
  }
  if (error.status === 0 || error.status === 404 || error.status === 503) server = null;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else start();
});
at("reply").addEventListener("click", reply);
at("forget").addEventListener("click", forget);
at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copy").textContent = "Copied";
  } catch {
    // no permission, or a page without TLS: the text is selected instead
    getSelection().selectAllChildren(at("curl"));
    at("copy").textContent = "Selected";
  }
});
form.addEventListener("change", (event) => {
  if (event.target.name === "kind") showKind();
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});

at("examples").append(
  ...EXAMPLES.map((example) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = example.name;
    button.addEventListener("click", () => take(example));
    return button;
  }),
);
take(EXAMPLES[0]);
findServer().catch((error) => {
  at("server").textContent = "not connected";
  report(error);
});
