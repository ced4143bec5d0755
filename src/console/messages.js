// How messages and gaps are shown, whichever page they are on.

import { raw, read, url } from './api.js';
import { make, when, write } from './dom.js';
import { printed, sourceOf } from './json.js';

/** What a member of an object is as text: JSON as it was typed, but in lines; text as it is, bytes in base64. */
export function textOf(object, name) {
  if (`${name}_text` in object) return object[`${name}_text`];
  if (`${name}_base64` in object) return object[`${name}_base64`];
  const source = sourceOf(object, name);
  return source === undefined ? '' : printed(source);
}
export const payloadOf = message => textOf(message, 'payload');

/** A message; with `actions`, with what can be done with it. */
export function messageRow(message, actions = []) {
  const text = payloadOf(message);
  const payload = make('pre', {}, text);
  const asKept = make('button', { onclick: async () => {
    const response = await raw('GET', url`api/v1/topics/${message.topic}/messages/${message.message_id}/payload`);
    write(payload, await read(response));
    asKept.remove();
  } }, 'As it was kept');
  const facts = [
    message.content_type, 'payload_base64' in message && 'base64', message.order_key && `key ${message.order_key}`,
    message.expires_at && `until ${message.expires_at}`,
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
