// How messages and gaps are shown, whichever page they are on.

import { raw, read, url } from './api.js';
import { inHex, saved, textIn } from './bytes.js';
import { make, when, write } from './dom.js';
import { button } from './app.js';
import { printed, sourceOf } from './json.js';

/** What a member of an object is as text: JSON as it was typed, but in lines; text as it is, bytes in base64. */
export function textOf(object, name) {
  if (`${name}_text` in object) return object[`${name}_text`];
  if (`${name}_base64` in object) return object[`${name}_base64`];
  const source = sourceOf(object, name);
  return source === undefined ? '' : printed(source);
}
export const payloadOf = message => textOf(message, 'payload');

/** The value of a key that is listed, or that it has none which can be shown. */
export const valueOf = row => (row.damaged
  ? make('span', { class: 'bad' }, 'The value is damaged, so it is not shown.') : make('pre', {}, textOf(row, 'value')));

/** A message, on a page that `signal` ends; with `actions`, with what can be done with it. */
export function messageRow(message, signal, actions = []) {
  const text = payloadOf(message);
  const payload = make('pre', {}, text);
  const asKept = button('As it was kept', async () => {
    const response = await raw('GET', url`api/v1/topics/${message.topic}/messages/${message.message_id}/payload`);
    const bytes = new Uint8Array(await read(response, 'arrayBuffer'));
    const kept = textIn(bytes);
    payload.classList.toggle('hex', kept === null);
    write(payload, kept ?? inHex(bytes));
    if (kept === null) asKept.replaceWith(saved(bytes, message.message_id, signal));
    else asKept.remove();
  });
  const facts = [
    message.content_type, 'payload_base64' in message && 'base64', message.order_key && `key ${message.order_key}`,
  ].filter(Boolean);
  const element = make('article', { class: 'message' },
    make('div', { class: 'top' }, make('code', {}, message.message_id), when(message.timestamp), ...facts.map(fact => make('span', {}, fact))),
    payload,
    message.metadata && make('details', {}, make('summary', {}, 'Metadata'), make('pre', {}, textOf(message, 'metadata'))),
    make('div', { class: 'row' }, asKept, ...actions));
  element.dataset.text = `${message.message_id} ${text} ${textOf(message, 'metadata')}`.toLowerCase();
  return element;
}

const REASONS = {
  trimmed: 'were trimmed', compacted: 'were compacted: the latest of each key is still there',
  deleted: 'are gone with their topic', reset: 'are not there any more: the storage has lost them, or what comes begins anew',
};

export function gapRow(gap) {
  const missed = gap.missed === undefined ? 'Messages' : gap.missed === 1 ? 'A message' : `${gap.missed} messages`;
  return make('p', { class: 'gap', role: 'note' },
    `Gap: ${missed} between ${gap.from} and ${gap.to} ${REASONS[gap.reason] ?? gap.reason}.`);
}
