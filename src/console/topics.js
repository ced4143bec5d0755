// The topics: searched by pattern, page by page, each with how much it has; and making one.

import { Refused, get, listed, post, url } from './api.js';
import { NAME, NUMBER, bytes, card, field, make, many, nextPage, number, put, seconds, span, table, write, written } from './dom.js';
import { again, every, form, go } from './app.js';

const PAGE = 50;
/** The name of a topic that cannot be described: its path is that of the counts. */
export const UNDESCRIBED = 'stats';
/** How often what topics have is asked for again, in milliseconds. */
export const LOOK_EVERY = 5_000;

export const hrefOf = (topic, tab = '') => `#/topic/${encodeURIComponent(topic)}${tab && `/${tab}`}`;

/** What people write when they look for a part of a name, as the relay reads it. */
const patternOf = text => (text.includes('*') || text === '' ? text : `${text}*`);

/** Says how many messages a second come to a topic, from one look at it to the next. */
export function paceOf() {
  let before = null;
  return ({ given }) => {
    const now = { given, at: performance.now() };
    const since = before && given !== null ? (given - before.given) / ((now.at - before.at) / 1000) : null;
    before = given === null ? null : now;
    // One that was made anew in between has fewer.
    return since === null || since < 0 ? null : number(since < 10 ? +since.toFixed(1) : Math.round(since));
  };
}

export async function show(place, _rest, signal, query) {
  const match = query.get('match') ?? '';
  const from = query.get('from') ?? '';
  const path = `api/v1/topics?limit=${PAGE}`
    + (match && `&match=${encodeURIComponent(patternOf(match))}`) + (from && `&cursor=${encodeURIComponent(from)}`);
  const search = make('form', { class: 'row', role: 'search', onsubmit: event => {
    event.preventDefault();
    go(`#/topics?match=${encodeURIComponent(new FormData(search).get('match'))}`);
  } }, field('Names that begin so, or a pattern', 'match', { value: match, placeholder: 'orders.*', spellcheck: 'false' }),
  make('button', {}, 'Search'));
  put(place, make('h1', {}, 'Topics'), search);
  const { rows, from: behind } = await listed(path);
  const stats = await get('api/v1/topics/stats').catch(() => null);
  const shown = new Map(rows.map(row => [row.topic_name, {
    pace: paceOf(), ...Object.fromEntries(['messages', 'second', 'size', 'oldest', 'readers', 'state'].map(cell => [cell, make('span')])),
  }]));
  const cell = name => row => shown.get(row.topic_name)[name];
  put(place,
    stats && make('p', { class: 'quiet' }, `${many(stats.total_topics, 'topic')} with ${many(stats.total_messages, 'message')}`),
    card(null, table([
      ['Name', row => make('a', { href: hrefOf(row.topic_name) }, row.topic_name), NAME],
      ['Messages', cell('messages'), NUMBER],
      ['A second', cell('second'), NUMBER],
      ['Size', cell('size'), NUMBER],
      ['Oldest', cell('oldest'), NUMBER],
      ['Readers here', cell('readers'), NUMBER],
      ['State', cell('state'), NAME],
      ['Kept for', row => span(row.retention_seconds) ?? 'as set', NUMBER],
      ['Owner', row => row.owner_id, NAME],
    ], rows, match ? 'No topic that you may read has such a name.' : 'There is no topic that you may read yet.')),
    nextPage(behind, behind => `#/topics?match=${encodeURIComponent(match)}&from=${behind}`),
    make('details', {}, make('summary', {}, 'Make a topic'), form(async ({ topic_name: name, retention, max, ...others }) => {
      const body = { topic_name: name, ...others };
      if (retention) body.retention_seconds = Number(retention);
      if (max) body.max_messages = Number(max);
      await post('api/v1/topics', body);
      go(hrefOf(name));
    }, make('div', { class: 'row' },
      field('Name', 'topic_name', { required: true, spellcheck: 'false' }),
      field('Description', 'description'),
      field('Seconds for which messages are kept', 'retention', { type: 'number', min: 1 }),
      field('Messages that are kept', 'max', { type: 'number', min: 1 }),
      make('button', { class: 'main' }, 'Make it')))),
    make('button', { onclick: again }, 'Look again'));
  // What a topic has is asked one by one, behind the list: a page is there at once, however many there are.
  every(LOOK_EVERY, signal, async () => {
    for (const [name, { pace, messages, second, size, oldest, readers, state }] of shown) {
      if (signal.aborted) return;
      if (name === UNDESCRIBED) continue;
      const about = await get(url`api/v1/topics/${name}`).catch(error => {
        if (!(error instanceof Refused) || error.isForNow) throw error;
        return { refusal: error };
      });
      if (about.refusal) {
        // One that is refused says nothing of the others.
        if (about.refusal.status !== 429) write(state, about.refusal.code === 'topic_not_found' ? 'gone' : about.refusal.code ?? about.refusal.message);
        continue;
      }
      messages.textContent = number(about.length);
      second.textContent = pace(about) ?? '–';
      size.textContent = bytes(about.bytes) ?? '–';
      oldest.textContent = seconds(about.oldest_age_seconds) ?? '–';
      readers.textContent = number(about.readers);
      write(state, about.state + (about.reason ? `: ${about.reason}` : ''));
      state.title = written(state.textContent);
    }
  });
}
