// A load for BullMQ: fills a queue, and has one worker process its jobs, so many at a time. Prints what was measured.
//
//   node bullmq.mjs PORT WORKERS JOBS BYTES
import { Queue, Worker } from "bullmq";

const [port, workers, jobs, bytes] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const queue = new Queue("bench", { connection });
const filler = "x".repeat(bytes - 12);
const kept = { removeOnComplete: true, removeOnFail: true };

for (let from = 0; from < jobs; from += 1000) {
  const numbers = Array.from({ length: Math.min(1000, jobs - from) }, (_, at) => from + at);
  await queue.addBulk(numbers.map((n) => ({ name: "job", data: String(n).padStart(12, "0") + filler, opts: kept })));
}

const seen = new Set();
let repeated = 0;
const started = process.hrtime.bigint();
await new Promise((resolve, reject) => {
  let completed = 0;
  const processor = async (job) => {
    const number = Number(job.data.slice(0, 12));
    if (seen.has(number)) repeated += 1;
    seen.add(number);
  };
  const worker = new Worker("bench", processor, { connection, concurrency: workers });
  worker.on("completed", () => {
    completed += 1;
    if (completed === jobs) resolve();
  });
  worker.on("failed", (_, error) => reject(error));
  worker.on("error", reject);
});
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
if (seen.size !== jobs || repeated > 0) throw new Error(`${seen.size} of ${jobs} jobs, ${repeated} twice`);
console.log(JSON.stringify({ count: jobs, per_second: jobs / seconds }));
process.exit(0);
