// The Vercel AI SDK with @ai-sdk/openai-compatible: text, a stream, a tool call whole and streamed, and an object.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, jsonSchema, streamText, tool } from "ai";

let input = "";
for await (const piece of process.stdin) input += piece;
const task = JSON.parse(input);

const provider = createOpenAICompatible({
  name: "outrider",
  baseURL: task.url,
  apiKey: "none",
  supportsStructuredOutputs: true,
  includeUsage: true,
});
const asked = {
  model: provider(task.model),
  messages: [{ role: "user", content: task.question }],
  temperature: 0,
  maxOutputTokens: task.max_tokens,
  maxRetries: 0,
};
const withTool = {
  ...asked,
  tools: {
    [task.tool.name]: tool({
      description: task.tool.description,
      inputSchema: jsonSchema(task.tool.parameters),
    }),
  },
  toolChoice: "required",
};

const whole = await generateText(asked);
const stream = streamText(asked);
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
const called = await generateText(withTool);
const [call] = called.toolCalls;
const [streamed] = await streamText(withTool).toolCalls;
const shaped = await generateText({ ...asked, output: Output.object({ schema: jsonSchema(task.schema) }) });
const later = await generateText({
  ...asked,
  messages: [
    ...asked.messages,
    ...called.response.messages,
    {
      role: "tool",
      content: [
        {
          type: "tool-result",
          toolCallId: call.toolCallId,
          toolName: call.toolName,
          output: { type: "text", value: "3" },
        },
      ],
    },
  ],
});

console.log(
  JSON.stringify({
    text: whole.text,
    pieces,
    call: [call.toolName, JSON.stringify(call.input)],
    streamed_call: [streamed.toolName, JSON.stringify(streamed.input)],
    shaped: JSON.stringify(shaped.output),
    later: later.text,
    num_tokens: whole.usage.outputTokens,
  }),
);
