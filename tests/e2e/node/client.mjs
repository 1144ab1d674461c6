// The official JavaScript client, unmodified, against a server whose address and key come in the
// environment: upload, fine-tune, follow, chat with what came of it, and clean up. Prints JSON.
import fs from "node:fs";
import OpenAI from "openai";

const [file, base] = process.argv.slice(2);
const client = new OpenAI(); // OPENAI_BASE_URL, OPENAI_API_KEY
const found = {};

const uploaded = await client.files.create({ file: fs.createReadStream(file), purpose: "fine-tune" });
found.file = (await client.files.retrieve(uploaded.id)).bytes;

let job = await client.fineTuning.jobs.create({
  model: base,
  training_file: uploaded.id,
  suffix: "node",
  metadata: { from: "node" },
});
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await new Promise((resolve) => setTimeout(resolve, 500));
  job = await client.fineTuning.jobs.retrieve(job.id);
}
found.status = job.status;
found.error = job.error;
found.events = 0;
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 5 })) {
  found.events += event.object === "fine_tuning.job.event" ? 1 : 0;
}
const model = job.fine_tuned_model;
found.model = model;

const messages = [{ role: "user", content: "Can I skip a week?" }];
const stream = await client.chat.completions.create({ model, messages, stream: true, max_tokens: 8 });
found.chunks = 0;
for await (const chunk of stream) found.chunks += chunk.choices.length;

const weather = {
  type: "function",
  function: {
    name: "opening_hours",
    parameters: {
      type: "object",
      properties: { day: { enum: ["monday", "sunday"] } },
      required: ["day"],
      additionalProperties: false,
    },
  },
};
const called = await client.chat.completions.create({
  model,
  messages,
  tools: [weather],
  tool_choice: { type: "function", function: { name: "opening_hours" } },
});
found.arguments = JSON.parse(called.choices[0].message.tool_calls[0].function.arguments);

const shaped = await client.chat.completions.create({
  model,
  messages,
  response_format: {
    type: "json_schema",
    json_schema: { name: "answer", strict: true, schema: weather.function.parameters },
  },
});
found.shaped = JSON.parse(shaped.choices[0].message.content);

found.modelDeleted = (await client.models.delete(model)).deleted;
found.fileDeleted = (await client.files.delete(uploaded.id)).deleted;
try {
  await client.chat.completions.create({ model, messages });
} catch (error) {
  found.afterwards = error.status;
}
console.log(JSON.stringify(found));
