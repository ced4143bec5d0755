// The value of one key: shown as what it is, and changed without losing anything that nobody has changed.
//
// Invariant: a put has the bytes that there were, unless the value was changed; and the time to live, how long it is fresh
// and the owner, unless those were.

import { Refused, call, get, raw, read, url } from './api.js';
import { bytes as sized, card, confirmed, facts, field, make, put, seconds, when } from './dom.js';
import { again, button, form } from './app.js';

/** Bytes of a value that are shown as numbers. */
const SHOWN_MAX = 512;
/** What people write as text, by its content type. */
const TEXTS = /^(text\/.*|application\/(.*\+)?(json|xml|yaml|toml|javascript|x-ndjson|sql|graphql|x-www-form-urlencoded|x-yaml|jsonl|ndjson|json5)|image\/svg\+xml|message\/.*)$/;

/** Line ends as a field has them. */
const inField = text => text.replace(/\r\n?/g, '\n');

/** A value as text that a field can hold and give back, byte for byte but for its line ends; else null, and why. */
function textOf(bytes, type) {
  if (!TEXTS.test(type.split(';')[0].trim().toLowerCase())) return { text: null, why: `It is ${type}, which is no text.` };
  let text;
  try {
    // A mark of the byte order at the beginning is a part of the value.
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { text: null, why: 'It is called text, and is none in UTF-8.' };
  }
  const probe = make('textarea', { value: text });
  if (probe.value !== inField(text)) return { text: null, why: 'A field cannot hold it as it is.' };
  return { text };
}

/** Bytes as numbers, sixteen in a line, with what they are in ASCII. */
function inHex(bytes) {
  const lines = [];
  for (let from = 0; from < Math.min(bytes.length, SHOWN_MAX); from += 16) {
    const row = [...bytes.subarray(from, Math.min(from + 16, SHOWN_MAX))];
    const signs = row.map(byte => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${from.toString(16).padStart(6, '0')}  ${row.map(byte => byte.toString(16).padStart(2, '0')).join(' ').padEnd(47)}  ${signs}`);
  }
  if (bytes.length > SHOWN_MAX) lines.push(`and ${sized(bytes.length - SHOWN_MAX)} more`);
  return lines.join('\n');
}

/** What the line ends of a text become once it was changed in a field: how to write it, and what to say. */
function lineEndsOf(text) {
  if (!text?.includes('\r')) return { restore: typed => typed };
  if (!/\r(?!\n)|(?<!\r)\n/.test(text)) {
    return { restore: typed => typed.replaceAll('\n', '\r\n'), note: 'Its lines end in CRLF, and go on to do so.' };
  }
  return { restore: typed => typed, note: 'Its lines do not all end alike (CR, CRLF, LF). Once the text is changed, all end in LF.' };
}

/** How a time to live is written that is left until then. */
function leftOf(milliseconds) {
  const whole = Math.max(1, Math.round(milliseconds / 1000));
  for (const [size, unit] of [[86_400, 'd'], [3_600, 'h'], [60, 'm']]) {
    if (whole % size === 0) return `${whole / size}${unit}`;
  }
  return `${whole}s`;
}

/** A field of a time that ends then, and what it says of a put: the same end where it was left as it was. */
function timeField(label, name, end, clock) {
  const value = end ? leftOf(end - clock()) : '';
  const shown = field(label, name, { value, placeholder: '30m', spellcheck: 'false' });
  const asked = text => {
    if ((text ?? '') !== value) return text;
    // What is over by now is over: it is not to live for ever.
    return end ? `${Math.max(1, Math.round(end - clock()))}ms` : undefined;
  };
  return { shown, asked, isChanged: text => (text ?? '') !== value };
}

/** Hands the bytes out as a file. */
function saved(bytes, name, signal) {
  const href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
  signal.addEventListener('abort', () => URL.revokeObjectURL(href));
  return make('a', { href, download: name }, `Download (${sized(bytes.length)})`);
}

/** What a put says of the end of a key, for who reads it before. */
function timeNote(expires, about) {
  const asSet = about?.ttl ? `as long as the bucket says (${seconds(about.ttl)})` : 'for ever, unless the bucket says otherwise';
  const asItIs = expires ? 'As it stands, the key ends when it would have ended anyway, and a lease that keeps it does so no more. '
    : 'As it stands, the field is empty. ';
  return `A put says anew how long the key lives. ${asItIs}Where the field is empty, it lives ${asSet}.`;
}

export async function show(place, bucket, key, hrefOfBucket, signal) {
  const path = url`api/v1/keys/${bucket}/${key}`;
  const response = await raw('GET', path).catch(error => (error.status === 404 ? null : Promise.reject(error)));
  const told = name => response?.headers.get(name) ?? null;
  const old = new Uint8Array(response ? await read(response, 'arrayBuffer') : 0);
  const about = await get(url`api/v1/buckets/${bucket}`).catch(error => (error.status < 500 && error.status > 0 ? null : Promise.reject(error)));
  const [etag, owner] = [told('etag'), told('tidemill-owner') ?? ''];
  const type = told('content-type') ?? 'application/json';
  const { text, why } = response ? textOf(old, type) : { text: '' };
  const { restore, note } = lineEndsOf(text);
  // Times are counted by the clock of the relay, to the second.
  const ahead = told('date') ? Date.parse(told('date')) - Date.now() : 0;
  const clock = () => Date.now() + (Math.abs(ahead) > 2_000 ? ahead : 0);
  const ends = name => (told(name) ? Date.parse(told(name)) : null);
  const life = timeField('It lives for', 'ttl', ends('tidemill-expires-at'), clock);
  const fresh = timeField('It is fresh for', 'fresh', ends('tidemill-fresh-until'), clock);
  const file = make('input', { name: 'file', type: 'file' });
  const typeField = field('Content type', 'type', { value: type, required: true, spellcheck: 'false' });
  file.addEventListener('change', () => {
    const chosen = file.files[0];
    if (chosen) typeField.querySelector('input').value = chosen.type || 'application/octet-stream';
  });

  const change = form(async given => {
    const chosen = given.file?.name ? given.file : null;
    const typed = inField(given.value ?? '');
    const isTyped = text !== null && typed !== inField(text);
    if (chosen && isTyped) throw new Refused(400, { title: 'There are two new values, a text and a file: take one away' });
    const isSame = !chosen && !isTyped && given.type === type && !life.isChanged(given.ttl) && !fresh.isChanged(given.fresh) && (given.owner ?? '') === owner;
    if (etag && isSame) return 'Nothing was changed, so nothing was put.';
    const body = chosen ?? (isTyped ? restore(typed) : old);
    const asked = { ttl: life.asked(given.ttl), fresh: fresh.asked(given.fresh), owner: given.owner };
    const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value)).toString();
    // Where another has changed it meanwhile, nothing is put: 412 says which revision there is.
    const condition = etag ? { 'if-match': etag } : { 'if-none-match': '*' };
    await call('PUT', path + (query && `?${query}`), { body, headers: { ...condition, 'content-type': given.type } });
    again();
    return null;
  },
  text === null
    ? [make('p', { class: 'quiet' }, `${why} It is not changed as text; a file can take its place.`), make('pre', { class: 'hex' }, inHex(old))]
    : field('Value', 'value', { value: text, spellcheck: 'false' }, 'textarea'),
  note && make('p', { class: 'warn' }, note),
  response && make('p', {}, saved(old, `${bucket}-${key}`, signal)),
  make('div', { class: 'row' },
    make('label', {}, text === null ? 'Its new value, from a file' : 'Or from a file', make('br'), file), typeField),
  make('div', { class: 'row' }, life.shown, told('tidemill-fresh-until') && fresh.shown,
    field('Owner', 'owner', { value: owner, spellcheck: 'false' })),
  make('p', { class: 'quiet' }, timeNote(ends('tidemill-expires-at'), about)),
  make('div', { class: 'row' }, make('button', { class: 'main' }, etag ? 'Put it' : 'Make it'),
    etag && button('Delete it', async () => {
      if (!await confirmed(`Delete the key ${key}?`, 'Delete it')) return;
      await call('DELETE', path, { headers: { 'if-match': etag } });
      location.hash = hrefOfBucket;
    }, 'danger')));
  put(place, card(null, etag
    ? facts([['Revision', make('code', {}, etag.replaceAll('"', ''))], ['Size', sized(old.length)], ['Made', when(told('tidemill-created-at'))],
      ['Ends', when(told('tidemill-expires-at')) ?? 'never'], ['Fresh until', when(told('tidemill-fresh-until'))], ['Owner', owner || null]])
    : make('p', { class: 'quiet' }, 'There is no such key now.')), card('Value', change));
}
