// Requests: JSON, or server-sent events as an asynchronous generator of parsed chunks; and the server's refusals.
// Knows HTTP and the API's error form; nothing of the page.

export class ServerError extends Error {
  // status 0: no answer; status 200: the stream itself broke
  constructor(status, message, { retryAfter = null, param = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.param = param;
  }
}

async function ask(path, options, apiKey) {
  const headers = { ...options.headers };
  if (apiKey) headers.Authorization = `Bearer ${apiKey}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text();
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // a proxy in between may answer with a page; its status says enough
  }
  const retryAfter = response.headers.get("Retry-After");
  return new ServerError(response.status, error.message ?? "", { retryAfter, param: error.param ?? null });
}

export async function getJson(path, apiKey) {
  return (await ask(path, {}, apiKey)).json();
}

export async function postJson(path, body, { apiKey, signal }) {
  return (await post(path, body, { apiKey, signal })).json();
}

function post(path, body, { apiKey, signal }) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  };
  return ask(path, options, apiKey);
}

export async function* chunks(path, body, { apiKey, signal }) {
  const response = await post(path, body, { apiKey, signal });
  let isDone = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      isDone = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(200, chunk.error.message ?? "");
    yield chunk;
  }
  if (!isDone) throw new ServerError(200, "");
}

// The data of each event: its lines that begin with "data:", up to an empty line.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    while (true) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ServerError(200, "");
      }
      if (part.done) return;
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).trimStart());
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
