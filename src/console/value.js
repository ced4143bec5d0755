// The value of one key: shown as what it is, and changed without losing anything that nobody has changed.
//
// Invariant: a put has the bytes that there were, unless the value was changed; and the time to live, how long it is fresh
// and the owner, unless those were.

import { Refused, call, get, raw, read, url } from './api.js';
import { inHex, saved, textIn } from './bytes.js';
import { TEXT, bytes as sized, card, confirmed, facts, field, make, put, span, table, when, write } from './dom.js';
import { again, button, form, go, told as toldOf } from './app.js';
import { valueOf } from './messages.js';

/** What people write as text, by its content type. */
const TEXTS = /^(text\/.*|application\/(.*\+)?(json|xml|yaml|toml|javascript|x-ndjson|sql|graphql|x-www-form-urlencoded|x-yaml|jsonl|ndjson|json5)|image\/svg\+xml|message\/.*)$/;

/** Line ends as a field has them. */
const inField = text => text.replace(/\r\n?/g, '\n');

/** A value as text that a field can hold and give back, byte for byte but for its line ends; else null, and why. */
function fieldText(bytes, type) {
  if (!TEXTS.test(type.split(';')[0].trim().toLowerCase())) return { text: null, why: `It is ${type}, which is no text.` };
  const text = textIn(bytes);
  if (text === null) return { text: null, why: 'It is called text, and is none in UTF-8.' };
  const probe = make('textarea', { value: text });
  if (probe.value !== inField(text)) return { text: null, why: 'A field cannot hold it as it is.' };
  return { text };
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

/** What a put says of the end of a key, for who reads it before. */
function timeNote(expires, about) {
  const asSet = about?.ttl ? `as long as the bucket says (${span(about.ttl)})` : 'for ever, unless the bucket says otherwise';
  const asItIs = expires ? 'As it stands, the key ends when it would have ended anyway, and a lease that keeps it does so no more. '
    : 'As it stands, the field is empty. ';
  return `A put says anew how long the key lives. ${asItIs}Where the field is empty, it lives ${asSet}.`;
}

/** What there is of a key: its bytes, and what `told` has of it by the names of headers; `damage` where it has no value to show. */
async function keyAt(path) {
  try {
    const response = await raw('GET', path);
    return { told: name => response.headers.get(name), old: new Uint8Array(await read(response, 'arrayBuffer')), damage: null };
  } catch (error) {
    const none = { told: () => null, old: new Uint8Array(0), damage: null };
    if (error.code === 'key_not_found' || error.code === 'bucket_not_found') return none;
    if (error.code !== 'damaged') throw error;
    const [newest] = (await get(`${path}?view=history`)).revisions;
    const known = {
      etag: `"${newest.revision}"`, 'tidemill-created-at': newest.created_at, 'tidemill-expires-at': newest.expires_at, 'tidemill-owner': newest.owner,
    };
    return { ...none, told: name => known[name] ?? null, damage: error };
  }
}

/** The revisions that are kept, once somebody asks for them: their values may be large. */
function revisions(path) {
  const at = make('div');
  return card('Revisions that are kept', make('div', { class: 'row' }, button('Show them', async () => {
    const kept = await get(`${path}?view=history`);
    write(at, table([
      ['Revision', row => make('code', {}, row.revision)],
      ['Value', valueOf, TEXT],
      ['Content type', row => row.content_type ?? (row.damaged ? null : 'application/json')],
    ], kept.revisions, 'There is none.'));
  })), at);
}

/** What is offered below what was refused, where another has changed the key meanwhile: what there is now. */
const orNewer = place => error => {
  if (error.status === 412) {
    place.append(make('p', { class: 'error' }, 'Another has changed it meanwhile. What was typed here goes where it is loaded again. ',
      make('button', { type: 'button', onclick: again }, 'Load what is there now')));
  }
  throw error;
};

export async function show(place, bucket, key, hrefOfBucket, signal) {
  const path = url`api/v1/keys/${bucket}/${key}`;
  const { told, old, damage } = await keyAt(path);
  const about = await get(url`api/v1/buckets/${bucket}`).catch(error => (error.status < 500 && error.status > 0 ? null : Promise.reject(error)));
  const [etag, owner] = [told('etag'), told('tidemill-owner') ?? ''];
  const type = told('content-type') ?? 'application/json';
  const { text, why } = etag && !damage ? fieldText(old, type) : { text: '' };
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

  const change = form(async (given, element) => {
    const chosen = given.file?.name ? given.file : null;
    const typed = inField(given.value ?? '');
    const isTyped = text !== null && typed !== inField(text);
    if (damage && !chosen && !isTyped) throw new Refused(400, { title: 'There is no new value: write one, or choose a file' });
    if (chosen && isTyped) throw new Refused(400, { title: 'There are two new values, a text and a file: take one away' });
    const isSame = !chosen && !isTyped && given.type === type && !life.isChanged(given.ttl) && !fresh.isChanged(given.fresh) && (given.owner ?? '') === owner;
    if (etag && isSame) return 'Nothing was changed, so nothing was put.';
    const body = chosen ?? (isTyped ? restore(typed) : old);
    const asked = { ttl: life.asked(given.ttl), fresh: fresh.asked(given.fresh), owner: given.owner };
    const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value)).toString();
    // Where another has changed it meanwhile, nothing is put: 412 says which revision there is.
    const condition = etag ? { 'if-match': etag } : { 'if-none-match': '*' };
    await call('PUT', path + (query && `?${query}`), { body, headers: { ...condition, 'content-type': given.type } }).catch(orNewer(element));
    again();
    return null;
  },
  text === null
    ? [make('p', { class: 'quiet' }, `${why} It is not changed as text; a file can take its place.`), make('pre', { class: 'hex' }, inHex(old))]
    : field('Value', 'value', { value: text, spellcheck: 'false' }, 'textarea'),
  note && make('p', { class: 'warn' }, note),
  etag && !damage && make('p', {}, saved(old, `${bucket}-${key}`, signal)),
  make('div', { class: 'row' },
    make('label', {}, text === null ? 'Its new value, from a file' : 'Or from a file', make('br'), file), typeField),
  make('div', { class: 'row' }, life.shown, told('tidemill-fresh-until') && fresh.shown,
    field('Owner', 'owner', { value: owner, spellcheck: 'false' })),
  make('p', { class: 'quiet' }, timeNote(ends('tidemill-expires-at'), about)),
  make('div', { class: 'row' }, make('button', { class: 'main' }, etag ? 'Put it' : 'Make it'),
    etag && button('Delete it', async () => {
      if (!await confirmed(`Delete the key ${key}?`, 'Delete it')) return;
      await call('DELETE', path, { headers: { 'if-match': etag } }).catch(orNewer(change));
      go(hrefOfBucket);
    }, 'danger')));
  put(place, card(null, damage && [toldOf(damage), make('p', { class: 'quiet' }, 'It can be put anew, or deleted.')], etag
    ? facts([['Revision', make('code', {}, etag.replaceAll('"', ''))], ['Size', damage ? null : sized(old.length)], ['Made', when(told('tidemill-created-at'))],
      ['Ends', when(told('tidemill-expires-at')) ?? 'never'], ['Fresh until', when(told('tidemill-fresh-until'))], ['Owner', owner || null]])
    : make('p', { class: 'quiet' }, 'There is no such key now.')), card('Value', change), etag && about?.history !== 1 && revisions(path));
}
