// What the page says: refusals of the server and the result of the comparison, in words.
// Knows errors and comparisons; nothing of the page.

export function inWords(error) {
  const said = error.message ? ` It says: ${error.message}` : "";
  switch (error.status) {
    case 0:
      return "The server does not answer. Is it still running? Run again to try once more.";
    case 200:
      return `The stream broke off before its end.${said || " The engine may have stopped."} The tokens so far are shown.`;
    case 401:
    case 403:
      return "This server asks for an API key. Enter it beside the settings and run again.";
    case 404:
      return `The server does not know this model any more.${said} Reload the page.`;
    case 413:
      return `The prompt is too large for this server.${said}`;
    case 429:
      return `The server is full. ${again(error.retryAfter)}`;
    case 503:
      return `The engine is not running.${said} ${again(error.retryAfter)}`;
    default:
      if (error.status === undefined) return `The page failed: ${error.message}`;
      if (error.status >= 500) return `The server failed (${error.status}).${said}`;
      return `The server refused the request${error.param ? ` because of ${error.param}` : ""}.${said}`;
  }
}

function again(retryAfter) {
  const seconds = Number(retryAfter);
  if (!retryAfter || !Number.isFinite(seconds)) return "Try again in a moment.";
  return `Try again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`;
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

// {kind: "same" | "different" | "open", title, text}
export function verdict(withDrafts, plain, { numCompared, difference }, { isStopped = false, isTimed = false } = {}) {
  if (difference !== null) return { kind: "different", title: "Not the same", text: where(withDrafts, plain, difference) };
  const isOver = withDrafts.finishReason !== null && plain.finishReason !== null;
  if (!isOver) {
    const sofar = numCompared ? `${count(numCompared, "token")} compared so far: all equal.` : "Nothing to compare yet.";
    return { kind: "open", title: isStopped ? "Stopped" : "Running", text: sofar };
  }
  const steps = withDrafts.steps.length;
  const plainSteps = plain.steps.length;
  const saved = plainSteps ? Math.round((100 * (plainSteps - steps)) / plainSteps) : 0;
  const digest = withDrafts.digest && plain.digest ? " The bits of all logits are equal, too." : "";
  return {
    kind: "same",
    title: "Same tokens",
    text:
      `${numCompared} of ${numCompared} token ids are equal, one by one.${digest} ` +
      `${count(steps, "step")} with drafts, ${plainSteps} without: ${saved} % of the steps saved.` + (isTimed ? speeds(withDrafts.tokensPerSecond, plain.tokensPerSecond) : ""),
  };
}

// Fewer steps are not always less time: a step that checks drafts is longer, and drafting takes time.
function speeds(withDrafts, plain) {
  if (withDrafts === null || plain === null) return "";
  const ratio = withDrafts / plain;
  if (ratio >= 1) return ` ${ratio.toFixed(2)} times the tokens per second.`;
  return ` But only ${ratio.toFixed(2)} times the tokens per second: here drafts cost more time than they save.`;
}

function where(withDrafts, plain, index) {
  const left = withDrafts.tokens[index];
  const right = plain.tokens[index];
  if (!left && !right) return `All ${index} token ids are equal, but the streams ended differently: ${ends(withDrafts, plain)}.`;
  return `Token ${index + 1} is ${named(left)} with drafts and ${named(right)} without. The ${index} before it are equal.`;
}

const named = (token) => (token ? `${JSON.stringify(token.text)} (id ${token.id})` : "missing");

function ends(left, right) {
  if (left.finishReason !== right.finishReason) return `“${left.finishReason}” and “${right.finishReason}”`;
  return `logits digests ${left.digest} and ${right.digest}`;
}

export function ending(tally) {
  switch (tally.finishReason) {
    case "stop":
      return "Ended by itself.";
    case "length":
      return "Ended at the token limit.";
    case null:
      return "";
    default:
      return `Ended: ${tally.finishReason}.`;
  }
}
