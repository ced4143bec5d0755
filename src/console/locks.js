// One lock: who holds it, and who waits.

import { call, get, url } from './api.js';
import { NAME, card, confirmed, field, make, put, table, when } from './dom.js';
import { again, button, form } from './app.js';

export async function show(place, [lock], _signal, query) {
  const guards = query.get('guards') ?? '';
  const path = lock && url`api/v1/locks/${lock}` + (guards && `?guards=${encodeURIComponent(guards)}`);
  put(place, make('h1', {}, lock ? `Lock ${lock}` : 'Locks'), form(({ name, guards: what = '' }) => {
    location.hash = `#/locks/${encodeURIComponent(name)}${what && `?guards=${encodeURIComponent(what)}`}`;
  }, make('div', { class: 'row' },
    field('Name', 'name', { required: true, value: lock ?? '', spellcheck: 'false' }),
    field('It guards', 'guards', { value: guards, placeholder: 'topic:orders', spellcheck: 'false' }),
    make('button', { class: 'main' }, 'Look'))));
  if (!lock) return;
  const about = await get(path);
  put(place, card(null,
    make('p', {}, about.holder ? `Held by ${about.holder}` : 'Nobody holds it.'),
    about.holder && table([
      ['Holder', row => row.holder, NAME],
      ['Fence', row => make('code', {}, row.fence)],
      ['Since', row => when(row.since ?? row.acquired_at)],
      ['Until', row => when(row.expires_at)],
    ], [about], ''),
    make('h2', {}, 'Who waits'),
    table([['Holder', row => row.holder ?? row, NAME], ['Since', row => when(row.since)]], about.queue, 'Nobody.'),
    make('div', { class: 'row' }, make('button', { onclick: again }, 'Look again'),
      about.holder && button('Take it away', async () => {
        if (!await confirmed(`Take the lock ${lock} away from ${about.holder}? What it does under the lock goes on, but its fence counts no more.`, 'Take it away')) return;
        await call('DELETE', path);
        again();
      }, 'danger'))));
}
