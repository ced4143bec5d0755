// The topics: searched by pattern, page by page, each with how much it has; and making one.

import { get, listed, post, url } from './api.js';
import { card, field, make, many, number, put, seconds, table, when } from './dom.js';
import { again, form } from './app.js';

const PAGE = 50;

export const hrefOf = (topic, tab = '') => `#/topic/${encodeURIComponent(topic)}${tab && `/${tab}`}`;

/** What people write when they look for a part of a name, as the relay reads it. */
const patternOf = text => (text.includes('*') || text === '' ? text : `${text}*`);

export async function show(place, _rest, signal, query) {
  const match = query.get('match') ?? '';
  const from = query.get('from') ?? '';
  const path = `api/v1/topics?limit=${PAGE}`
    + (match && `&match=${encodeURIComponent(patternOf(match))}`) + (from && `&cursor=${encodeURIComponent(from)}`);
  const { rows, next } = await listed(path);
  const stats = await get('api/v1/topics/stats').catch(() => null);
  const cells = new Map(rows.map(row => [row.topic_name, [make('span'), make('span'), make('span')]]));
  const nextFrom = next && new URL(next).searchParams.get('cursor');
  const search = make('form', { class: 'row', role: 'search', onsubmit: event => {
    event.preventDefault();
    location.hash = `#/topics?match=${encodeURIComponent(new FormData(search).get('match'))}`;
  } }, field('Names that begin so, or a pattern', 'match', { value: match, placeholder: 'orders.*', spellcheck: 'false' }),
  make('button', {}, 'Search'));
  put(place,
    make('h1', {}, 'Topics'),
    stats && make('p', { class: 'quiet' }, `${many(stats.total_topics, 'topic')} with ${many(stats.total_messages, 'message')}`),
    search,
    card(null, table([
      ['Name', row => make('a', { href: hrefOf(row.topic_name) }, row.topic_name)],
      ['Messages', row => cells.get(row.topic_name)[0], true],
      ['Oldest', row => cells.get(row.topic_name)[1], true],
      ['State', row => cells.get(row.topic_name)[2]],
      ['Kept for', row => seconds(row.retention_seconds) ?? 'as set', true],
      ['Owner', row => row.owner_id],
      ['Made', row => when(row.created_at)],
    ], rows, match ? 'No topic that you may read has such a name.' : 'There is no topic that you may read yet.')),
    nextFrom && make('p', {}, make('a', { href: `#/topics?match=${encodeURIComponent(match)}&from=${encodeURIComponent(nextFrom)}` }, 'Next page')),
    make('details', {}, make('summary', {}, 'Make a topic'), form(async ({ topic_name: name, retention, max, ...others }) => {
      const body = { topic_name: name, ...others };
      if (retention) body.retention_seconds = Number(retention);
      if (max) body.max_messages = Number(max);
      await post('api/v1/topics', body);
      location.hash = hrefOf(name);
    }, make('div', { class: 'row' },
      field('Name', 'topic_name', { required: true, spellcheck: 'false' }),
      field('Description', 'description'),
      field('Seconds for which messages are kept', 'retention', { type: 'number', min: 1 }),
      field('Messages that are kept', 'max', { type: 'number', min: 1 }),
      make('button', { class: 'main' }, 'Make it')))),
    make('button', { onclick: again }, 'Look again'));
  // What a topic has is asked one by one, behind the list: a page is there at once, however many there are.
  (async () => {
    for (const row of rows) {
      if (signal.aborted) return;
      const about = await get(url`api/v1/topics/${row.topic_name}`).catch(() => null);
      const [messages, oldest, state] = cells.get(row.topic_name);
      if (!about) { state.textContent = 'gone'; continue; }
      messages.textContent = number(about.length);
      oldest.textContent = seconds(about.oldest_age_seconds) ?? '–';
      state.textContent = about.state + (about.reason ? `: ${about.reason}` : '');
    }
  })();
}
