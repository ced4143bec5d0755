// Buckets of keys: what is in them, and watching.

import { LONG, call, follow, get, listed, url } from './api.js';
import { NAME, NUMBER, TEXT, bytes, card, confirmed, facts, field, heading, make, nextPage, number, put, span, table, when } from './dom.js';
import { button, form, go, pauses, told } from './app.js';
import { valueOf } from './messages.js';
import * as value from './value.js';

/** Rows that a watch keeps. */
const ROWS_MAX = 200;
const hrefOf = (...parts) => `#/keys/${parts.map(encodeURIComponent).join('/')}`;

export async function show(place, [bucket, key], signal, query) {
  if (bucket === undefined) return buckets(place, query);
  put(place, make('p', { class: 'crumbs' }, make('a', { href: '#/keys' }, 'Buckets'),
    ...(key === undefined ? [] : [' / ', make('a', { href: hrefOf(bucket) }, bucket)])), heading(key ?? bucket));
  return key === undefined ? keys(place, bucket, signal, query) : value.show(place, bucket, key, hrefOf(bucket), signal);
}

async function buckets(place, query) {
  const from = query.get('from');
  put(place, make('h1', {}, 'Keys'));
  const { rows, from: behind } = await listed(`api/v1/buckets?limit=100${from ? `&after=${encodeURIComponent(from)}` : ''}`);
  put(place, card(null, table([
    ['Bucket', row => make('a', { href: hrefOf(row.bucket) }, row.bucket), NAME],
    ['Keys', row => number(row.keys), NUMBER],
    ['Size', row => bytes(row.bytes), NUMBER],
    ['Revisions kept of a key', row => number(row.history), NUMBER],
    ['A key lives for', row => span(row.ttl), NUMBER],
    ['Made', row => when(row.created_at)],
  ], rows, 'There is no bucket all of whose keys you may read.')),
  nextPage(behind, behind => `#/keys?from=${behind}`),
  form(({ bucket }) => go(hrefOf(bucket)),
    make('div', { class: 'row' }, field('Or go to a bucket', 'bucket', { required: true, spellcheck: 'false' }), make('button', {}, 'Go'))));
}

/** Takes this for an answer, where what is asked for is refused with one of these codes. */
const or = (answer, ...codes) => error => (codes.includes(error.code) ? answer : Promise.reject(error));

async function keys(place, bucket, signal, query) {
  const [prefix, from] = [query.get('prefix') ?? '', query.get('from')];
  const path = url`api/v1/keys/${bucket}` + '?limit=100&values=true'
    + (prefix && `&prefix=${encodeURIComponent(prefix)}`) + (from ? `&after=${encodeURIComponent(from)}` : '');
  const search = make('form', { class: 'row', role: 'search', onsubmit: event => {
    event.preventDefault();
    go(`${hrefOf(bucket)}?prefix=${encodeURIComponent(new FormData(search).get('prefix'))}`);
  } }, field('Keys that begin so', 'prefix', { value: prefix, spellcheck: 'false' }), make('button', {}, 'Search'));
  // What was asked for wrongly is answered below the form.
  put(place, search);
  const [about, { rows, from: behind, isAbsent }] = await Promise.all([
    get(url`api/v1/buckets/${bucket}`).catch(or(null, 'forbidden', 'bucket_not_found')),
    listed(path).catch(or({ rows: [], from: null, isAbsent: true }, 'bucket_not_found'))]);
  const watched = make('div');
  const watch = make('button', { onclick: () => { watch.disabled = true; follows(watched, bucket, prefix, signal); } }, 'Watch');
  put(place,
    about && card(null, facts([
      ['Keys', number(about.keys)], ['Size', bytes(about.bytes)], ['Most keys', number(about.max_keys)], ['Most bytes', bytes(about.max_bytes)],
      ['A key lives for', span(about.ttl)], ['And at most', span(about.absolute_age)],
      ['One that is filled lives for', about.adaptive_ttl && `${span(about.adaptive_ttl.min)} to ${span(about.adaptive_ttl.max)}, the longer the more it is read`],
      ['Revisions kept of a key', number(about.history)],
    ])),
    card(null, table([
      ['Key', row => make('a', { href: hrefOf(bucket, row.key) }, row.key), NAME],
      ['Value', valueOf, TEXT],
      ['Revision', row => make('code', {}, row.revision)],
      ['Ends', row => when(row.expires_at)],
      ['Owner', row => row.owner, NAME],
    ], rows, isAbsent ? 'There is no such bucket now. It is made with its first key.' : 'There is no such key.')),
    nextPage(behind, behind => `${hrefOf(bucket)}?prefix=${encodeURIComponent(prefix)}&from=${behind}`),
    form(({ key }) => go(hrefOf(bucket, key)),
      make('div', { class: 'row' }, field('Make a key, or go to one', 'key', { required: true, spellcheck: 'false' }), make('button', {}, 'Go'))),
    card('Changes', make('div', { class: 'row' }, watch), watched),
    !isAbsent && button('Delete the bucket', async () => {
      if (!await confirmed(`Delete ${bucket} with ${number(about?.keys) ?? 'all its'} keys? Nothing brings them back.`, 'Delete it', bucket)) return;
      await call('DELETE', url`api/v1/buckets/${bucket}`, LONG);
      go('#/keys');
    }, 'danger'));
}

async function follows(place, bucket, prefix, signal) {
  const state = make('p', { class: 'quiet', role: 'status' }, 'Watching…');
  const rows = make('div');
  place.replaceChildren(state, rows);
  let count = 0;
  const add = row => {
    rows.prepend(row);
    while (rows.childElementCount > ROWS_MAX) rows.lastElementChild.remove();
  };
  const between = pauses();
  const path = url`api/v1/keys/${bucket}` + (prefix && `?prefix=${encodeURIComponent(prefix)}`);
  while (!signal.aborted) {
    // What comes until everything is there that there was is no change.
    let [isSynced, ended] = [false, null];
    const say = () => { state.textContent = `Watching; ${count} changes came`; };
    try {
      await follow(path, signal, line => {
        if (line.type === 'synced') {
          isSynced = true;
          between.begin();
          say();
        } else if (line.type === 'reset') {
          isSynced = false;
          add(make('p', { class: 'gap', role: 'note' }, 'Changes were lost here: their log was trimmed, or the bucket is another one.'));
        } else if (line.type === 'end') ended ??= line.reason;
        else if (line.type === 'problem') ended = line.problem.detail;
        if (!isSynced || !('key' in line)) return;
        count += 1;
        say();
        add(make('div', { class: 'message' }, make('pre', {}, `${line.key}  ${line.type}  ${line.revision ?? ''}`), line.type === 'put' && valueOf(line)));
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) return state.replaceChildren(told(error));
    }
    state.replaceChildren();
    put(state, ended ? `The relay has ended it (${ended}); ` : 'The connection broke; ', 'what changes until it is there again is not shown here.');
    await between.wait();
  }
}
