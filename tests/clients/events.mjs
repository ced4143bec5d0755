// Reads a stream of events with a library until a message says that it is the last, and prints each event as a
// line of JSON. The data of every event must be JSON, as programs take for granted.
//
//     node events.mjs eventsource|fetch-event-source URL [LAST_EVENT_ID]

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const [library, url, lastEventId] = process.argv.slice(2);
// The packages lie in a folder of their own.
const require = createRequire(path.resolve(process.env.PACKAGES, 'package.json'));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const tell = ({ event, id, data }) => {
  console.log(JSON.stringify({ event, id, data }));
  return JSON.parse(data).payload === 'last';
};
const headers = lastEventId ? { 'Last-Event-ID': lastEventId } : {};

if (library === 'eventsource') {
  const { EventSource } = await load('eventsource');
  const fetchWith = (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } });
  const source = new EventSource(url, { fetch: fetchWith });
  for (const name of ['subscribed', 'message', 'gap', 'end']) {
    source.addEventListener(name, (event) => {
      if (tell({ event: event.type, id: event.lastEventId, data: event.data })) source.close();
    });
  }
} else {
  // It is written for browsers.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  const { fetchEventSource } = await load('@microsoft/fetch-event-source');
  const stop = new AbortController();
  await fetchEventSource(url, {
    headers,
    signal: stop.signal,
    openWhenHidden: true,
    onmessage({ event, id, data }) {
      // Its messages without a name have an empty one.
      if (tell({ event: event || 'message', id, data })) stop.abort();
    },
    onerror(error) {
      throw error;
    },
  });
}
