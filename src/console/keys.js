// Buckets of keys: what is in them, changing a key where nobody else has changed it meanwhile, and watching.

import { call, follow, get, listed, raw, url } from './api.js';
import { bytes, card, confirmed, facts, field, make, number, put, seconds, table, when } from './dom.js';
import { again, button, form, told } from './app.js';
import { payloadOf } from './messages.js';

/** Rows that a watch keeps. */
const ROWS_MAX = 200;
const hrefOf = (...parts) => `#/keys/${parts.map(encodeURIComponent).join('/')}`;

export async function show(place, [bucket, key], signal, query) {
  if (bucket === undefined) return buckets(place, query);
  put(place, make('p', { class: 'crumbs' }, make('a', { href: '#/keys' }, 'Buckets'),
    ...(key === undefined ? [] : [' / ', make('a', { href: hrefOf(bucket) }, bucket)])), make('h1', {}, key ?? bucket));
  return key === undefined ? keys(place, bucket, signal, query) : one(place, bucket, key);
}

async function buckets(place, query) {
  const from = query.get('from');
  const { rows, next } = await listed(`api/v1/buckets?limit=100${from ? `&after=${encodeURIComponent(from)}` : ''}`);
  put(place, make('h1', {}, 'Keys'), card(null, table([
    ['Bucket', row => make('a', { href: hrefOf(row.bucket) }, row.bucket)],
    ['Keys', row => number(row.keys), true],
    ['Size', row => bytes(row.bytes), true],
    ['Earlier values', row => number(row.history), true],
    ['A key lives for', row => seconds(row.ttl), true],
    ['Made', row => when(row.created_at)],
  ], rows, 'There is no bucket all of whose keys you may read.')),
  next && make('p', {}, make('a', { href: `#/keys?from=${encodeURIComponent(new URL(next).searchParams.get('after'))}` }, 'Next page')),
  form(({ bucket }) => { location.hash = hrefOf(bucket); },
    make('div', { class: 'row' }, field('Or go to a bucket', 'bucket', { required: true, spellcheck: 'false' }), make('button', {}, 'Go'))));
}

async function keys(place, bucket, signal, query) {
  const [prefix, from] = [query.get('prefix') ?? '', query.get('from')];
  const path = url`api/v1/keys/${bucket}` + '?limit=100&values=true'
    + (prefix && `&prefix=${encodeURIComponent(prefix)}`) + (from ? `&after=${encodeURIComponent(from)}` : '');
  const [about, { rows, next }] = await Promise.all([
    get(url`api/v1/buckets/${bucket}`).catch(error => (error.status === 403 ? null : Promise.reject(error))), listed(path)]);
  const watched = make('div');
  const watch = make('button', { onclick: () => { watch.disabled = true; follows(watched, bucket, prefix, signal); } }, 'Watch');
  const search = make('form', { class: 'row', role: 'search', onsubmit: event => {
    event.preventDefault();
    location.hash = `${hrefOf(bucket)}?prefix=${encodeURIComponent(new FormData(search).get('prefix'))}`;
  } }, field('Keys that begin so', 'prefix', { value: prefix, spellcheck: 'false' }), make('button', {}, 'Search'));
  const after = next && new URL(next).searchParams.get('after');
  put(place,
    about && card(null, facts([
      ['Keys', number(about.keys)], ['Size', bytes(about.bytes)], ['Most keys', number(about.max_keys)], ['Most bytes', bytes(about.max_bytes)],
      ['A key lives for', seconds(about.ttl)], ['And at most', seconds(about.absolute_age)], ['Earlier values', number(about.history)],
    ])),
    search,
    card(null, table([
      ['Key', row => make('a', { href: hrefOf(bucket, row.key) }, row.key)],
      ['Value', row => make('pre', {}, payloadOf(valueOf(row)))],
      ['Revision', row => make('code', {}, row.revision)],
      ['Ends', row => when(row.expires_at)],
      ['Owner', row => row.owner],
    ], rows, 'There is no such key.')),
    after && make('p', {}, make('a', { href: `${hrefOf(bucket)}?prefix=${encodeURIComponent(prefix)}&from=${encodeURIComponent(after)}` }, 'Next page')),
    form(({ key }) => { location.hash = hrefOf(bucket, key); },
      make('div', { class: 'row' }, field('Make a key, or go to one', 'key', { required: true, spellcheck: 'false' }), make('button', {}, 'Go'))),
    card('Changes', make('div', { class: 'row' }, watch), watched),
    button('Delete the bucket', async () => {
      if (!await confirmed(`Delete ${bucket} with ${number(about?.keys) ?? 'all its'} keys? Nothing brings them back.`, 'Delete it', bucket)) return;
      await call('DELETE', url`api/v1/buckets/${bucket}`);
      location.hash = '#/keys';
    }, 'danger'));
}

/** A value as messages write their payloads. */
const valueOf = row => ('value_text' in row ? { payload_text: row.value_text }
  : 'value_base64' in row ? { payload_base64: row.value_base64 } : { payload: row.value });

async function follows(place, bucket, prefix, signal) {
  const state = make('p', { class: 'quiet', role: 'status' }, 'Watching…');
  const rows = make('div');
  place.replaceChildren(state, rows);
  let count = 0;
  const path = url`api/v1/keys/${bucket}` + (prefix && `?prefix=${encodeURIComponent(prefix)}`);
  while (!signal.aborted) {
    let isSynced = false;
    try {
      await follow(path, signal, line => {
        if (line.type === 'synced') isSynced = true;
        if (!isSynced || !('key' in line)) return;
        count += 1;
        state.textContent = `Watching; ${count} changes came`;
        rows.prepend(make('pre', { class: 'message' }, `${line.key}  ${line.type}  ${line.revision ?? ''}\n${'value' in line || 'value_text' in line || 'value_base64' in line ? payloadOf(valueOf(line)) : ''}`));
        while (rows.childElementCount > ROWS_MAX) rows.lastElementChild.remove();
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500) return state.replaceChildren(told(error));
    }
    state.textContent = 'The connection broke; what changes until it is there again is not shown here.';
    await new Promise(resolve => setTimeout(resolve, 2_000));
  }
}

async function one(place, bucket, key) {
  const path = url`api/v1/keys/${bucket}/${key}`;
  const response = await raw('GET', path).catch(error => (error.status === 404 ? null : Promise.reject(error)));
  const etag = response?.headers.get('etag');
  const media = response?.headers.get('content-type') ?? 'application/json';
  const text = response ? await response.text() : '';
  const change = form(async ({ value, ttl, type }) => {
    // Where another has changed it meanwhile, nothing is put: 412 says which revision there is.
    const condition = etag ? { 'if-match': etag } : { 'if-none-match': '*' };
    await call('PUT', path + (ttl ? `?ttl=${encodeURIComponent(ttl)}` : ''), { body: value ?? '', headers: { ...condition, 'content-type': type } });
    again();
  }, field('Value', 'value', { value: text, spellcheck: 'false' }, 'textarea'),
  make('div', { class: 'row' },
    field('Content type', 'type', { value: media, required: true, spellcheck: 'false' }),
    field('It lives for', 'ttl', { placeholder: '30m' })),
  make('div', { class: 'row' }, make('button', { class: 'main' }, etag ? 'Put it' : 'Make it'),
    etag && button('Delete it', async () => {
      if (!await confirmed(`Delete the key ${key}?`, 'Delete it')) return;
      await call('DELETE', path, { headers: { 'if-match': etag } });
      location.hash = hrefOf(bucket);
    }, 'danger')));
  put(place, card(null, etag
    ? facts([['Revision', make('code', {}, etag.replaceAll('"', ''))], ['Made', when(response.headers.get('tidemill-created-at'))],
      ['Ends', when(response.headers.get('tidemill-expires-at'))], ['Owner', response.headers.get('tidemill-owner')]])
    : make('p', { class: 'quiet' }, 'There is no such key now.')), card('Value', change));
}
