// What one stream has given so far, and the comparison of two: tokens, steps, speed, speculation.
// Knows the chunks of the API; nothing of the page or of HTTP.

export class Tally {
  constructor() {
    this.tokens = []; // {id, text, isDraft, step, draft}: step from 0; draft from 1, or 0 for a token of the target
    this.steps = []; // {drafts, hasTarget} of each step
    this.speculation = null;
    this.finishReason = null;
    this.digest = null;
    this.firstAt = null; // milliseconds
    this.lastAt = null;
    this.numFirst = 0; // tokens of the first chunk, which no time of decoding belongs to
  }

  add(chunk, now) {
    if (chunk.usage?.speculation) this.speculation = chunk.usage.speculation;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const ids = choice.token_ids ?? [];
    ids.forEach((id, index) => this.#push(id, choice.token_texts[index], choice.origins[index] === "draft"));
    if (ids.length) {
      if (this.firstAt === null) {
        this.firstAt = now;
        this.numFirst = ids.length;
      }
      this.lastAt = now;
    }
    if (choice.finish_reason) this.finishReason = choice.finish_reason;
    if (choice.logits_digest) this.digest = choice.logits_digest;
  }

  // A step gives its accepted drafts and then one token of the target, unless a stop cuts it short.
  #push(id, text, isDraft) {
    let step = this.steps.at(-1);
    if (!step || step.hasTarget) {
      step = { drafts: 0, hasTarget: false };
      this.steps.push(step);
    }
    if (isDraft) step.drafts += 1;
    else step.hasTarget = true;
    this.tokens.push({ id, text, isDraft, step: this.steps.length - 1, draft: isDraft ? step.drafts : 0 });
  }

  get tokensPerStep() {
    return this.steps.length ? this.tokens.length / this.steps.length : null;
  }

  // null until there is enough time to divide by
  get tokensPerSecond() {
    const milliseconds = this.lastAt - this.firstAt;
    return milliseconds > 50 ? (1000 * (this.tokens.length - this.numFirst)) / milliseconds : null;
  }

  // Unconditional: accepted at this position, of all steps that had drafts.
  get acceptance() {
    const { num_drafts: drafts = 0, num_accepted_tokens_per_pos: counts = [] } = this.speculation ?? {};
    return counts.map((accepted) => ({ accepted, drafts, rate: drafts ? accepted / drafts : 0 }));
  }
}

// Token id by token id. `difference` is the first index at which the streams differ, or null; a stream that ended
// while the other went on differs there.
export function compare(left, right) {
  const numCompared = Math.min(left.tokens.length, right.tokens.length);
  for (let index = 0; index < numCompared; index += 1) {
    if (left.tokens[index].id !== right.tokens[index].id) return { numCompared, difference: index };
  }
  const isOver = left.finishReason !== null && right.finishReason !== null;
  const sameLength = left.tokens.length === right.tokens.length;
  const isSame = sameLength && left.finishReason === right.finishReason && left.digest === right.digest;
  return { numCompared, difference: isOver && !isSame ? numCompared : null };
}
