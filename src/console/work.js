// The groups of all topics: what waits in each, and where nobody asks for it.

import { listed } from './api.js';
import { NAME, NUMBER, card, make, many, number, put, seconds, table, when, write } from './dom.js';
import { again, attempt } from './app.js';
import { hrefOf } from './topics.js';

/** Pages that are asked for by themselves: each is a part of all topics, in which few may have groups. */
const PAGES_AT_ONCE = 10;
/** Groups that are shown at once. */
const SHOWN = 100;

export async function show(place, _rest, _signal, query) {
  const isUnattended = query.get('unattended') === 'true';
  put(place, make('h1', {}, 'Groups'), make('p', {}, isUnattended
    ? ['Those that are not done, and of which nobody has asked for messages for a minute. ', make('a', { href: '#/groups' }, 'All groups')]
    : ['Those of all topics. ', make('a', { href: '#/groups?unattended=true' }, 'Only those that nobody asks for messages')]));
  const rows = [];
  let next = `api/v1/groups?limit=${SHOWN}${isUnattended ? '&unattended=true' : ''}`;
  const at = make('div');
  const further = make('div');
  const look = async () => {
    const enough = rows.length + SHOWN;
    for (let page = 0; next && page < PAGES_AT_ONCE && rows.length < enough; page += 1) {
      const { rows: found, next: behind } = await listed(next);
      rows.push(...found);
      next = behind;
    }
    const none = isUnattended ? 'There is none.' : 'No topic that you may work on has a group.';
    write(at, make('p', { class: 'quiet' }, `${many(rows.length, 'group')}${next ? ' found so far' : ''}`), table([
      ['Topic', row => make('a', { href: hrefOf(row.topic) }, row.topic), NAME],
      ['Group', row => make('a', { href: `#/group/${encodeURIComponent(row.topic)}/${row.group}` }, row.group), NAME],
      ['Waiting', row => number(row.waiting), NUMBER],
      ['In flight', row => number(row.in_flight), NUMBER],
      ['After a failure', row => number(row.in_backoff), NUMBER],
      ['Dead', row => number(row.dead), NUMBER],
      ['Oldest', row => seconds(row.oldest_waiting_seconds), NUMBER],
      ['Last claim', row => when(row.last_claim)],
      ['', row => (row.paused ? make('span', { class: 'warn' }, 'paused') : null)],
    ], rows, next ? 'None in what was looked through.' : none));
    write(further, next && make('button', { onclick: () => attempt(further, look) }, 'Look further'));
  };
  await look();
  put(place, card(null, at, further), make('button', { onclick: again }, 'Look again'));
}
