// The page at / of a pooling model: reads the texts, asks for vectors, scores or classes, draws the matrix.
// HTTP is in stream.js, numbers in vectors.js, sentences about errors in words.js.

import { getJson, postJson } from "./stream.js";
import { cosine, decoded } from "./vectors.js";
import { inWords } from "./words.js";

const EXAMPLE = [
  "How do I bake bread without yeast?",
  "Soda bread rises with baking soda and buttermilk.",
  "The harbour is closed to ships in winter.",
  "Ice keeps boats out of the port from December on.",
  "A triangle with three equal sides has three equal angles.",
];
const MOST = 24;

const at = (id) => document.getElementById(id);
const form = at("form");
const runButton = at("run");

let server = null; // {model, way}
let running = null; // AbortController of a run

// ---- what a model can do, and how it is asked

// Each: the sentence at the top, the caption, and the cells of the matrix for the texts.
const WAYS = {
  embed: {
    lead:
      "This model turns a text into a vector. Texts of similar meaning have vectors of similar direction: the matrix shows " +
      "the cosine of every pair. The same text gives the same bytes, alone and beside any others: Compare tests it.",
    caption: "Cosine of each pair. The most similar other text of a row is bold.",
    request: (texts) => ({ path: "v1/embeddings", body: { model: server.model, input: texts, encoding_format: "base64" } }),
    async matrix(texts, ask) {
      const together = await vectors(texts, ask);
      const values = together.map(decoded);
      const cells = values.map((one) => values.map((other) => cosine(one, other)));
      return { heads: numbers(texts), cells, isSquare: true, prove: () => alone(texts, together, ask) };
    },
  },
  score: {
    lead:
      "This model reads two texts at once and scores the second for the first, such as a document for a question. The matrix " +
      "shows the score of every pair: the row is the question, the column the document.",
    caption: "Score of each pair: row, then column. The best other text of a row is bold.",
    request: (texts) => ({ path: "score", body: { model: server.model, text_1: texts[0], text_2: texts } }),
    async matrix(texts, ask) {
      const cells = [];
      for (const text of texts) {
        const { data } = await ask("score", { model: server.model, text_1: text, text_2: texts });
        cells.push(data.map(({ score }) => score));
      }
      return { heads: numbers(texts), cells, isSquare: true };
    },
  },
  classify: {
    lead: "This model sorts texts into classes. The matrix shows the probability of every class for every text.",
    caption: "Probability of each class. The most likely class of a row is bold.",
    request: (texts) => ({ path: "classify", body: { model: server.model, input: texts } }),
    async matrix(texts, ask) {
      const { data } = await ask("classify", { model: server.model, input: texts });
      const heads = data[0].probs.map((_, index) => data.find(({ probs }) => best(probs) === index)?.label ?? String(index + 1));
      return { heads, cells: data.map(({ probs }) => probs), isSquare: false };
    },
  },
};

const numbers = (texts) => texts.map((_, index) => String(index + 1));
const best = (values) => values.indexOf(Math.max(...values));

async function vectors(texts, ask) {
  const { path, body } = WAYS.embed.request(texts);
  const { data } = await ask(path, body);
  return data.map(({ embedding }) => embedding);
}

// Every text by itself gives the bytes that it gave beside the others; or the first that does not.
async function alone(texts, together, ask) {
  for (const [index, text] of texts.entries()) {
    const [bytes] = await vectors([text], ask);
    if (bytes !== together[index]) {
      return { kind: "different", title: "Not the same", text: `Text ${index + 1} alone gives other bytes than beside the others.` };
    }
  }
  return {
    kind: "same",
    title: "Same bytes",
    text: `Each of the ${texts.length} texts was also sent alone, and gave the vector that it gave beside the others, byte by byte.`,
  };
}

// ---- the server

async function findServer() {
  const { data } = await getJson("v1/models", at("key").value);
  const [model] = data;
  const way = Object.keys(WAYS).find((name) => model.tasks?.includes(name)) ?? null;
  server = { model: model.id, way: way && WAYS[way] };
  at("server").textContent = `${model.id} · ${(model.tasks ?? []).join(", ")}`;
  at("lead").textContent = server.way?.lead ?? "This model offers /pooling only, which this page does not show.";
  form.hidden = !server.way;
}

// ---- what is drawn

function cellOf(value, { isBest, isSame }) {
  const cell = document.createElement("td");
  cell.textContent = value.toFixed(3);
  cell.className = isSame ? "is-same-text" : isBest ? "is-best" : "";
  cell.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.abs(value)))}%`);
  if (value < 0) cell.classList.add("is-negative");
  return cell;
}

function draw(texts, { heads, cells, isSquare }) {
  const corner = document.createElement("td");
  at("heads").replaceChildren(
    corner,
    ...heads.map((name, index) => {
      const head = document.createElement("th");
      head.scope = "col";
      head.textContent = name;
      if (isSquare) head.title = texts[index];
      return head;
    }),
  );
  at("rows").replaceChildren(
    ...cells.map((values, index) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = `${index + 1}. ${texts[index]}`;
      head.title = texts[index];
      const others = values.map((value, column) => (isSquare && column === index ? -Infinity : value));
      const most = best(others);
      row.append(
        head,
        ...values.map((value, column) => cellOf(value, { isBest: column === most, isSame: isSquare && column === index })),
      );
      return row;
    }),
  );
  at("caption").textContent = server.way.caption;
  at("results").hidden = false;
}

function say({ kind, title, text }) {
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

function curl({ path, body }) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = at("key").value ? ' -H "Authorization: Bearer $API_KEY"' : "";
  return `curl ${new URL(path, document.baseURI)} -H 'Content-Type: application/json'${key} -d '${quoted}'`;
}

// ---- a run

// The texts, or null with a complaint.
function read() {
  const texts = at("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const isRight = texts.length >= 2 && texts.length <= MOST;
  at("texts").removeAttribute("aria-invalid");
  if (isRight) return texts;
  at("texts").setAttribute("aria-invalid", "true");
  complain(`There ${texts.length === 1 ? "is 1 text" : `are ${texts.length} texts`}. Give 2 to ${MOST}, one in each line.`);
  at("texts").focus();
  return null;
}

async function start() {
  complain(null);
  at("status").hidden = at("results").hidden = true;
  const texts = read();
  if (texts === null) return;
  running = new AbortController();
  const { signal } = running;
  const ask = (path, body) => postJson(path, body, { apiKey: at("key").value, signal });
  runButton.textContent = "Stop";
  document.body.classList.add("is-running");
  try {
    if (server === null) await findServer();
    if (!server.way) return;
    say({ kind: "open", title: "Running", text: "" });
    const found = await server.way.matrix(texts, ask);
    draw(texts, found);
    at("copy").textContent = "Copy";
    at("curl").textContent = curl(server.way.request(texts));
    say(found.prove ? await found.prove() : { kind: "open", title: "Done", text: `${texts.length} texts.` });
  } catch (error) {
    at("status").hidden = true;
    if (error.name !== "AbortError") report(error);
  } finally {
    running = null;
    runButton.textContent = "Compare";
    document.body.classList.remove("is-running");
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
at("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});

at("texts").value = EXAMPLE.join("\n");
findServer().catch((error) => {
  at("server").textContent = "not connected";
  report(error);
});
