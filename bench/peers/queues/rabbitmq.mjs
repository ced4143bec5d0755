// A load for RabbitMQ: fills a durable queue with persistent messages, and has consumers with a connection each take
// and acknowledge them, at most BATCH at a time. Prints what was measured.
//
//   node rabbitmq.mjs PORT WORKERS MESSAGES BYTES BATCH
import amqp from "amqplib";

const [port, workers, messages, bytes, batch] = process.argv.slice(2).map(Number);
const url = `amqp://127.0.0.1:${port}`;
const filler = "x".repeat(bytes - 12);
const control = await amqp.connect(url);
const channel = await control.createConfirmChannel();
await channel.assertQueue("bench", { durable: true });
for (let n = 0; n < messages; n += 1) {
  channel.sendToQueue("bench", Buffer.from(String(n).padStart(12, "0") + filler), { persistent: true });
  if (n % 1000 === 999) await channel.waitForConfirms();
}
await channel.waitForConfirms();

const seen = new Set();
let repeated = 0;
const started = process.hrtime.bigint();
await new Promise((resolve, reject) => {
  const work = async () => {
    const connection = await amqp.connect(url);
    const own = await connection.createChannel();
    await own.prefetch(batch);
    let taken = [];
    await own.consume("bench", (message) => {
      const number = Number(message.content.subarray(0, 12).toString());
      if (seen.has(number)) repeated += 1;
      seen.add(number);
      taken.push(message);
      // A whole batch is acknowledged at once; so is what is left at the end.
      if (taken.length >= Math.max(1, batch / 2) || seen.size === messages) {
        own.ack(message, true);
        taken = [];
      }
      if (seen.size === messages) resolve();
    });
  };
  for (let n = 0; n < workers; n += 1) work().catch(reject);
});
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
if (repeated > 0) throw new Error(`${repeated} messages came twice`);
console.log(JSON.stringify({ count: messages, per_second: messages / seconds }));
process.exit(0);
